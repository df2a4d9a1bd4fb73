"""TLS contexts: what they trust, what they refuse to load, and that equal settings share one."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.peers import pki
from tpxd.wire import tls
from tpxd.wire.tls import TlsContextCache, certificate_expires, check_pems


def test_safe_by_default() -> None:
    context = TlsContextCache()(ca=pki.ca().certificate)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_private_ca_replaces_the_trust_store() -> None:
    context = TlsContextCache()(ca=pki.ca().certificate)
    (trusted,) = context.get_ca_certs()
    assert trusted["subject"] == ((("commonName", "Test CA"),),)


def test_without_a_ca_the_systems_trust_store_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = tmp_path / "store.pem"
    store.write_text(pki.ca().certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(store))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert len(TlsContextCache()().get_ca_certs()) == 1


def test_equal_settings_share_one_context() -> None:
    contexts, identity = TlsContextCache(), pki.client()
    first = contexts(ca=pki.ca().certificate, certificate=identity.certificate, private_key=identity.private_key)
    again = contexts(ca=pki.ca().certificate, certificate=identity.certificate, private_key=identity.private_key)
    assert first is again
    assert contexts(ca=pki.ca().certificate) is not first
    assert contexts(ca=pki.ca().certificate, alpn=["mqtt"]) is not contexts(ca=pki.ca().certificate)


def test_contexts_that_nobody_uses_are_forgotten() -> None:
    contexts = TlsContextCache()
    used = contexts(ca=pki.ca().certificate)
    for number in range(tls.KEPT_UNUSED * 2):
        contexts(ca=pki.ca().certificate, alpn=[f"protocol-{number}"])
    gc.collect()
    assert len(contexts._contexts) == tls.KEPT_UNUSED + 1
    assert contexts(ca=pki.ca().certificate) is used


def test_keys_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths that OpenSSL reads are of anonymous files, which are gone afterwards."""
    loaded: list[str] = []
    load = ssl.SSLContext.load_cert_chain

    def watch(context: ssl.SSLContext, certificate: str, key: str, password: Callable[[], str]) -> None:
        loaded.extend(str(Path(path).readlink()) for path in (certificate, key))
        load(context, certificate, key, password)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    before = sorted(Path("/proc/self/fd").iterdir())
    check_pems(certificate=pki.client().certificate, private_key=pki.client().private_key)
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert len(loaded) == 2
    assert all(path.startswith("/memfd:") for path in loaded)


def test_several_certificates() -> None:
    intermediate = pki.issue("Intermediate", pki.ca(), is_ca=True)
    identity = pki.issue("plant", intermediate, client=True)
    check_pems(
        ca=pki.ca().certificate + intermediate.certificate,
        certificate=identity.certificate + intermediate.certificate,
        private_key=identity.private_key,
    )


def test_text_around_the_blocks_is_ignored() -> None:
    identity = pki.client()
    check_pems(certificate="subject=plant\n" + identity.certificate, private_key=identity.private_key + "\n\n")


@pytest.mark.parametrize("before", ["\ufeff", "# Főtanúsítvány\n", "\ufeff# Zürich\r\n"], ids=ascii)
def test_a_byte_order_mark_and_remarks_in_any_language_are_ignored(before: str) -> None:
    """As Windows' editors write PEM, and as bundles of public CAs hold names."""
    identity = pki.client()
    check_pems(
        ca=before + pki.ca().certificate,
        certificate=before + identity.certificate,
        private_key=before + identity.private_key,
    )
    (trusted,) = TlsContextCache()(ca=before + pki.ca().certificate).get_ca_certs()
    assert trusted["subject"] == ((("commonName", "Test CA"),),)


def test_a_key_of_the_older_kind() -> None:
    """`BEGIN EC PRIVATE KEY` and `BEGIN RSA PRIVATE KEY` are what many tools still write."""
    identity = pki.client()
    older = identity.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    check_pems(certificate=identity.certificate, private_key=older.decode())


def older_encrypted_key() -> str:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    encryption = serialization.BestAvailableEncryption(b"secret")
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, encryption
    ).decode()


GARBAGE = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"
GARBAGE_KEY = GARBAGE.replace("CERTIFICATE", "PRIVATE KEY")


@pytest.mark.parametrize(
    ("certificate", "private_key", "reason"),
    [
        (pki.client().certificate, pki.client().encrypted_key(), "private key is encrypted.*openssl pkey"),
        (pki.client().certificate, older_encrypted_key(), "private key is encrypted"),
        (pki.client().certificate, pki.server().private_key, "does not belong to the certificate"),
        (pki.ca().certificate + pki.client().certificate, pki.client().private_key, "the first one, if several"),
        (pki.client().certificate, None, "certificate without its private key"),
        (None, pki.client().private_key, "private key without its certificate"),
        ("hello", pki.client().private_key, "the certificate is not PEM"),
        (pki.client().certificate, "hello", "the private key is not PEM"),
        (pki.client().private_key, pki.client().private_key, "the certificate is not PEM"),
        (pki.client().certificate, pki.client().certificate, "the private key is not PEM"),
        (GARBAGE, pki.client().private_key, "cannot be read"),
        (pki.client().certificate, GARBAGE_KEY, "cannot be read"),
        (pki.client().certificate[:200], pki.client().private_key, "cannot be read"),
    ],
)
def test_identities_that_do_not_load(certificate: str | None, private_key: str | None, reason: str) -> None:
    for check in (check_pems, TlsContextCache()):
        with pytest.raises(ValueError, match=reason) as caught:
            check(ca=pki.ca().certificate, certificate=certificate, private_key=private_key)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ca", ["", "hello", GARBAGE, pki.ca().private_key])
def test_trust_that_does_not_load(ca: str) -> None:
    with pytest.raises(ValueError, match="trusted CA certificate is not PEM"):
        check_pems(ca=ca)


def test_expiry_is_the_earliest_of_a_chain() -> None:
    soon = pki.issue("soon", pki.ca(), expires=pki.NOW + timedelta(days=3))
    assert certificate_expires(pki.client().certificate) == pki.NOW + timedelta(days=60)
    expires = certificate_expires(pki.client().certificate + soon.certificate + pki.ca().certificate)
    assert expires == pki.NOW + timedelta(days=3)
    assert expires.tzinfo is UTC


@pytest.mark.parametrize("pem", ["", "hello", GARBAGE, pki.client().private_key])
def test_expiry_of_nothing(pem: str) -> None:
    with pytest.raises(ValueError, match="not PEM"):
        certificate_expires(pem)


def rsa_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def test_a_key_of_another_kind_than_the_certificate_is_said_so() -> None:
    told = "does not belong to the certificate .*: the certificate has an EllipticCurve key, and this is an RSA key"
    with pytest.raises(ValueError, match=told.replace("EllipticCurve", "EC")):
        check_pems(certificate=pki.client().certificate, private_key=rsa_key())
