"""TLS contexts from PEM texts, shared between equal settings; certificates' dates.

An own context costs about 20 ms and 830 KiB (the default trust store), so connections with equal settings share one.
Private keys reach OpenSSL through an anonymous file in memory: it only loads them from files, and none touches a disk.

What this does not do: certificates from disk, key passwords, revocation lists.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol
from weakref import WeakValueDictionary

# between a lost link and the next try nobody holds a context; the newest few outlive that
KEPT_UNUSED = 16


class TlsContexts(Protocol):
    """Makes client contexts and shares them between equal settings; see `TlsContextCache`."""

    def __call__(
        self,
        *,
        ca: str | None = None,
        certificate: str | None = None,
        private_key: str | None = None,
        alpn: Sequence[str] = (),
    ) -> ssl.SSLContext:
        """See `TlsContextCache`."""


class TlsContextCache(TlsContexts):
    """Makes client contexts and hands equal settings the same one, as long as somebody uses it."""

    def __init__(self) -> None:
        self._contexts: WeakValueDictionary[bytes, ssl.SSLContext] = WeakValueDictionary()
        self._newest: deque[ssl.SSLContext] = deque(maxlen=KEPT_UNUSED)

    def __call__(
        self,
        *,
        ca: str | None = None,
        certificate: str | None = None,
        private_key: str | None = None,
        alpn: Sequence[str] = (),
    ) -> ssl.SSLContext:
        """Return a context for TLS 1.2 and newer that checks the server's name.

        Args:
            ca: PEM of what to trust, instead of the system's trust store.
            certificate: PEM of the client's certificate, then its intermediates.
            private_key: PEM of its key, not encrypted.
            alpn: protocols to offer, the preferred one first.

        Raises:
            ValueError: a PEM text does not load; the message says which, and why.
        """
        texts = (ca, certificate, private_key, *alpn)
        # a digest, so that no second copy of a key lies in memory
        key = hashlib.sha256(repr(texts).encode()).digest()
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = _make_context(ca, certificate, private_key, alpn)
        if context not in self._newest:
            self._newest.append(context)
        return context


def check_pems(*, ca: str | None = None, certificate: str | None = None, private_key: str | None = None) -> None:
    """Raise the ValueError that a context of these texts would; cheap, since no trust store is loaded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        _trust(context, ca)
    _identify(context, certificate, private_key)


def trusts_given_ca(context: ssl.SSLContext) -> bool:
    """Whether a context made here trusts a given CA instead of the system's trust store."""
    return bool(context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN)


def certificate_expires(pem: str) -> datetime:
    """Return the earliest end of validity of all certificates in the text, in UTC.

    Raises:
        ValueError: the text holds no certificate that can be read.
    """
    # imported here: most daemons hold no client certificate, and the library takes 8 MiB
    from cryptography import x509

    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise ValueError("the certificate is not PEM: it must hold a -----BEGIN CERTIFICATE----- block") from error
    return min(certificate.not_valid_after_utc for certificate in certificates).astimezone(UTC)


def _make_context(
    ca: str | None, certificate: str | None, private_key: str | None, alpn: Sequence[str]
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # requires a certificate and checks its name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _trust(context, ca)
    _identify(context, certificate, private_key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _trust(context: ssl.SSLContext, ca: str) -> None:
    # an intermediate, or the server's own certificate, is as good an anchor as a root when an operator says so
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=_ascii(ca).decode())
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(
            "the trusted CA certificate is not PEM: it must hold a -----BEGIN CERTIFICATE----- block"
        ) from error


def _identify(context: ssl.SSLContext, certificate: str | None, private_key: str | None) -> None:
    if certificate is None and private_key is None:
        return
    if certificate is None:
        raise ValueError("a private key without its certificate")
    if private_key is None:
        raise ValueError("a certificate without its private key")
    if "-----BEGIN " not in certificate or "CERTIFICATE-----" not in certificate:
        raise ValueError("the certificate is not PEM: it must hold a -----BEGIN CERTIFICATE----- block")
    if "-----BEGIN " not in private_key or "PRIVATE KEY-----" not in private_key:
        raise ValueError("the private key is not PEM: it must hold a -----BEGIN PRIVATE KEY----- block")
    try:
        with _in_memory(certificate) as certificate_path, _in_memory(private_key) as key_path:
            context.load_cert_chain(certificate_path, key_path, password=_refuse_password)
    except ssl.SSLError as error:
        kinds = _kinds(certificate, private_key)
        if kinds or error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(
                f"the private key does not belong to the certificate (the first one, if several){kinds}"
            ) from error
        raise ValueError(f"the certificate or its private key cannot be read: {_reason(error)}") from error


def _kinds(certificate: str, private_key: str) -> str:
    """Of which kinds both are, where these differ, such as RSA and EC; nothing where they do not."""
    # imported here, as for the dates of certificates
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        public = x509.load_pem_x509_certificates(_ascii(certificate))[0].public_key()
        private = load_pem_private_key(_ascii(private_key), None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return ""
    names = ["EC" if isinstance(key, EllipticCurvePublicKey) else type(key).__name__[:3] for key in (public, private)]
    return "" if names[0] == names[1] else f": the certificate has an {names[0]} key, and this is an {names[1]} key"


def _ascii(text: str) -> bytes:
    """PEM without a byte order mark, and without what remarks between its blocks may hold, such as ü."""
    return text.encode("ascii", "ignore")


def _refuse_password() -> str:
    raise ValueError("the private key is encrypted: remove its password with `openssl pkey -in KEY -out KEY.plain`")


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "damaged PEM").replace("_", " ").lower()


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """A path under which the text can be read while the block lasts; nothing of it is written to a disk."""
    descriptor = os.memfd_create("tpxd-pem", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.write(_ascii(text))
        yield f"/proc/self/fd/{descriptor}"
