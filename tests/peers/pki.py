"""Certificates for tests: a CA, and what it issues."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as PEM and as objects."""

    certificate: str
    private_key: str
    x509: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def encrypted_key(self, password: bytes = b"secret") -> str:
        """The key as PKCS#8 with a password."""
        return _pem_of(self.key, serialization.BestAvailableEncryption(password))

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write `name.crt` and `name.key` for a program that reads files."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_text(self.certificate)
        key.write_text(self.private_key)
        return certificate, key


def _pem_of(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


def issue(
    name: str,
    issuer: Identity | None = None,
    *,
    is_ca: bool = False,
    client: bool = False,
    expires: datetime = NOW + timedelta(days=60),
) -> Identity:
    """Make a certificate; one without an issuer signs itself.

    Args:
        name: common name, and, as a name or an address, what a server's certificate is made out to.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.x509.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(NOW, expires) - timedelta(days=30))
        .not_valid_after(expires)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if is_ca:
        # what newer peers check as well (RFC 5280, 4.2.1.3)
        builder = builder.add_extension(_SIGNS, critical=True)
    else:
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(name)]), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return Identity(pem, _pem_of(key, serialization.NoEncryption()), certificate, key)


_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@cache
def ca() -> Identity:
    """The CA of most tests."""
    return issue("Test CA", is_ca=True)


@cache
def server(name: str = "localhost") -> Identity:
    """A server's identity, issued by `ca`."""
    return issue(name, ca())


@cache
def client() -> Identity:
    """A client's identity, issued by `ca`."""
    return issue("plant", ca(), client=True)
