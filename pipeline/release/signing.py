"""Who signs, and who is believed: ed25519 keys of the user's. Rule: a key inside a package proves nothing.

Keys are PEM files: PKCS8 for the private one, which a passphrase may encrypt, SubjectPublicKeyInfo for the public one.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY_VARIABLE = "EDGEPROOF_SIGNING_KEY"
"""Environment: the private key itself (PEM), or the path of its file."""
PASSPHRASE_VARIABLE = "EDGEPROOF_KEY_PASSPHRASE"
MAX_PASSPHRASE = 1023
"""Bytes that OpenSSL takes."""
PRIVATE_FILE, PUBLIC_FILE = "signing_key.pem", "signing_key.pub.pem"
_MAX_KEY_BYTES = 2**16


@dataclass(frozen=True)
class Signature:
    """What a key says of some bytes."""

    key_id: str
    """sha256 of the public key (DER, SubjectPublicKeyInfo) in hex: tells keys apart, and proves nothing."""
    content: bytes


class Signer(Protocol):
    """Whoever has the private key."""

    def sign(self, payload: bytes) -> Signature:
        """Sign `payload` as it is."""
        ...


@dataclass(frozen=True)
class SigningKey:
    """A private key: the same payload gets the same signature (RFC 8032)."""

    _private: "Ed25519PrivateKey"

    @property
    def public(self) -> "PublicKey":
        """What others verify with."""
        return PublicKey(self._private.public_key())

    def sign(self, payload: bytes) -> Signature:
        """Sign `payload` as it is."""
        return Signature(self.public.key_id, self._private.sign(payload))


@dataclass(frozen=True)
class PublicKey:
    """A public key that the user named, and therefore trusts."""

    _public: "Ed25519PublicKey"

    @property
    def key_id(self) -> str:
        """sha256 of the key, as DER of SubjectPublicKeyInfo, in hex."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        der = self._public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(der).hexdigest()

    def pem(self) -> bytes:
        """Return it as a file holds it."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, signature: bytes, payload: bytes) -> bool:
        """Tell whether `signature` is this key's over `payload`."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._public.verify(signature, payload)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class NewKey:
    """A key that was just made."""

    private: Path
    public: Path
    key_id: str
    is_encrypted: bool


def new_key(folder: Path, passphrase: str | None = None) -> NewKey:
    """Make a key in `folder`: the private half for its owner alone (0600), encrypted where there is a passphrase.

    Raises:
        UsageError: one of the files is there already: nothing is ever overwritten.
        OSError: the folder cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    secret = os.fsencode(passphrase or "")
    if len(secret) > MAX_PASSPHRASE:
        raise UsageError(
            f"{PASSPHRASE_VARIABLE}: expected at most {MAX_PASSPHRASE} bytes; got {len(secret)}; choose a shorter one"
        )
    key = Ed25519PrivateKey.generate()
    encryption = BestAvailableEncryption(secret) if secret else NoEncryption()
    private, public = folder / PRIVATE_FILE, folder / PUBLIC_FILE
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path}: expected no key here yet; got one; keep it, or name another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    _write_new(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption), 0o600)
    own = SigningKey(key).public
    _write_new(public, own.pem(), 0o644)
    return NewKey(private, public, own.key_id, is_encrypted=bool(passphrase))


def find_signing_key(path: Path | None, environment: Mapping[str, str]) -> SigningKey | None:
    """Return the private key of a file, else that of EDGEPROOF_SIGNING_KEY, else None.

    Raises:
        UsageError: what is named is no ed25519 private key, or its passphrase is missing or wrong.
    """
    passphrase = environment.get(PASSPHRASE_VARIABLE) or None
    if path is not None:
        return _read_private(str(path), _read(path), passphrase)
    said = environment.get(KEY_VARIABLE, "").strip()
    if not said:
        return None
    if said.startswith("-----BEGIN"):
        return _read_private(KEY_VARIABLE, os.fsencode(said), passphrase)
    try:
        content = _read(Path(said))
    except UsageError:  # which would show it, and it may be a key without its first line
        raise UsageError(
            f"{KEY_VARIABLE}: expected a private key (PEM) or the path of one; got neither (not shown here); set or "
            "unset it"
        ) from None
    return _read_private(KEY_VARIABLE, content, passphrase)


def read_public_key(path: Path) -> PublicKey:
    """Return the public key of a file.

    Raises:
        UsageError: it is no ed25519 public key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    expected = f"{path}: expected an ed25519 public key (PEM), as `edgeproof keys new` writes it"
    content = _read(path)
    if b"PRIVATE KEY-----" in content:
        raise UsageError(f"{expected}; got a private key, which belongs on the signer's machine alone")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{expected}; got another file") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{expected}; got a key of another algorithm")
    return PublicKey(key)


def _read_private(where: str, content: bytes, passphrase: str | None) -> SigningKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    expected = f"{where}: expected an ed25519 private key (PEM), as `edgeproof keys new` writes it"
    is_encrypted = b"ENCRYPTED PRIVATE KEY-----" in content
    if is_encrypted and passphrase is None:
        raise UsageError(f"{expected}; got one that is encrypted; put its passphrase into {PASSPHRASE_VARIABLE}")
    try:
        key = load_pem_private_key(content, os.fsencode(passphrase) if passphrase and is_encrypted else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        got = f"one that {PASSPHRASE_VARIABLE} does not open" if is_encrypted else "something else"
        raise UsageError(f"{expected}; got {got}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{expected}; got a key of another algorithm")
    return SigningKey(key)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: expected a key (PEM); got: {error.strerror}; name its file") from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
