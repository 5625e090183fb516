"""X.509 certificates with ECDSA P-256, which `certs` writes. Import it late: cryptography takes 34 ms."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from machine import ownership
from machine.errors import MachineError
from machine.reasons import reason
from machine.tls.lifetimes import CA_DAYS, LEAF_DAYS

# Certificates begin in the past, because a guest's clock may be behind the host's.
SKEW = timedelta(days=1)
_DNS_NAME = re.compile(
    r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)
_USAGE = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
# Our own keys are all elliptic; a user's CA or client may have another kind.
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
REGENERATE = "machine regenerate-certs"


@dataclass(frozen=True)
class Pair:
    cert: x509.Certificate
    key: Key

    def cert_pem(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def new_ca(common_name: str) -> Pair:
    """A self-signed CA that may sign end-entity certificates only (path length 0)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    builder = _builder(name, name, key, datetime.now(UTC) + timedelta(days=CA_DAYS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(sign_certificates=True), critical=True)
    return Pair(builder.sign(key, hashes.SHA256()), key)


def issue(ca: Pair, common_name: str, *, usage: Literal["server", "client"], names: Sequence[str] = ()) -> Pair:
    """A certificate for one usage, signed by ca; it ends no later than the CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(datetime.now(UTC) - SKEW + timedelta(days=LEAF_DAYS), ca.cert.not_valid_after_utc)
    builder = _builder(_name(common_name), ca.cert.subject, key, ends)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(sign_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([_USAGE[usage]]), critical=False)
    builder = builder.add_extension(_authority(ca.cert), critical=False)
    if names:
        alternatives = x509.SubjectAlternativeName([general_name(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return Pair(builder.sign(ca.key, _digest(ca.key)), key)


def load(cert: Path, key: Path) -> Pair:
    """The certificate and its key. Raises MachineError when they can't be read or don't belong together."""
    certificate = read(cert)
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except PermissionError as error:
        raise ownership.explained(error) from error
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MachineError(f"{key} can't be used as a key: {reason(error)}", hint=REGENERATE) from error
    if not isinstance(private, Key):
        raise MachineError(f"{key} is of a kind that TLS doesn't use here", hint="use ECDSA, Ed25519 or RSA")
    if _public(private) != _public(certificate):
        raise MachineError(f"{key} isn't the key of {cert}", hint=REGENERATE)
    return Pair(certificate, private)


def read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except PermissionError as error:
        raise ownership.explained(error) from error
    except (OSError, ValueError) as error:
        raise MachineError(f"{path} can't be used as a certificate: {reason(error)}", hint=REGENERATE) from error


def fits(cert: Path, key: Path, ca: Pair, *, within: timedelta, names: Sequence[str] = ()) -> bool:
    """Whether the pair is complete, signed by this CA, for exactly these names, and lasts longer than within."""
    try:
        certificate = load(cert, key).cert
        certificate.verify_directly_issued_by(ca.cert)
    except (MachineError, InvalidSignature, ValueError, TypeError):
        return False
    ends = certificate.not_valid_after_utc
    # A certificate that ends with its CA can't last longer.
    lasts = ends > datetime.now(UTC) + within or ends == ca.cert.not_valid_after_utc
    return lasts and _alternatives(certificate) == {general_name(name) for name in names}


def general_name(name: str) -> x509.GeneralName:
    """An IP address or a DNS name in a certificate's form. Raises ValueError for anything else."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        if not _DNS_NAME.fullmatch(name):
            raise
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "machine"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The identifier of the CA's key: the CA's own if it has one (a user's CA may not)."""
    try:
        identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        identifier = x509.SubjectKeyIdentifier.from_public_key(ca.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _alternatives(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _digest(key: Key) -> hashes.SHA256 | None:
    # Ed25519 has its digest built in, and the library refuses a second one.
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _public(holder: x509.Certificate | Key) -> bytes:
    return holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
