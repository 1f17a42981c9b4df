"""What keys and attestations promise: who signed what, and that nothing else passes for it."""

import base64
import hashlib
import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from android_samples import sample_payload
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pipeline.errors import UsageError
from pipeline.release.archive import lay_out, parse_time
from pipeline.release.attestation import pre_authentication
from pipeline.release.manifest import canonical_json
from pipeline.release.payload import Payload
from pipeline.release.seal import seal
from pipeline.release.signing import (
    KEY_VARIABLE,
    PASSPHRASE_VARIABLE,
    PublicKey,
    SigningKey,
    find_signing_key,
    new_key,
    read_public_key,
)
from pipeline.release.verify import verify_bytes
from pipeline.release.zipped import read_zip

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
OTHER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1"))
ATTESTATION = "release/attestation.dsse.json"


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return sample_payload(tmp_path_factory.mktemp("release"))


def _sealed(payload: Payload, signer: SigningKey | None = KEY) -> bytes:
    own = {"wrapper.py": b"pass\n"}
    return seal(own, payload, platform="linux", root="release/", model="release/model.onnx", signer=signer)


@pytest.fixture(scope="module")
def signed(payload: Payload) -> bytes:
    return _sealed(payload)


def _envelope(archive: bytes) -> dict[str, object]:
    envelope: dict[str, object] = json.loads(read_zip(archive).files[ATTESTATION])
    return envelope


def test_what_is_signed_is_encoded_as_the_standard_says() -> None:
    published = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"  # DSSE, protocol.md, test vectors
    assert pre_authentication(b"hello world", "http://example.com/HelloWorld") == published


def test_signature_holds_for_whoever_follows_the_standard(signed: bytes) -> None:
    envelope = _envelope(signed)
    payload, kind = base64.b64decode(str(envelope["payload"])), str(envelope["payloadType"])
    encoded = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(payload)).encode(), payload])
    (signature,) = envelope["signatures"]  # type: ignore[misc]
    public = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    public.verify(base64.b64decode(signature["sig"]), encoded)  # raises InvalidSignature where it does not hold


def test_statement_names_every_file_of_the_archive_and_where_the_model_comes_from(
    signed: bytes, payload: Payload
) -> None:
    statement = json.loads(base64.b64decode(str(_envelope(signed)["payload"])))
    files = {name: content for name, content in read_zip(signed).files.items() if name != ATTESTATION}
    found = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
    assert found == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert (statement["_type"], statement["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    build = statement["predicate"]["buildDefinition"]
    assert build["externalParameters"]["platform"] == "linux"
    origins = {each["name"]: each["digest"]["sha256"] for each in build["resolvedDependencies"]}
    assert origins == {"release digits 0.1.0 cpu": origins["release digits 0.1.0 cpu"], **payload.manifest.lineage}


def test_same_key_signs_the_same_bytes(payload: Payload, signed: bytes) -> None:
    assert _sealed(payload) == signed


def test_only_the_key_that_was_given_is_believed(payload: Payload, signed: bytes) -> None:
    assert verify_bytes(signed, KEY.public).is_trusted
    unchecked = verify_bytes(signed)
    assert (unchecked.ok, unchecked.is_trusted, unchecked.signed_by) == (True, False, KEY.public.key_id)
    unsigned = verify_bytes(_sealed(payload, None))
    assert (unsigned.ok, unsigned.signed_by) == (True, None)


def _repacked(archive: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """Return the archive with other files, packed as we pack."""
    files = dict(read_zip(archive).files)
    change(files)
    time = parse_time(json.loads(files["release/manifest.json"])["created_at"])
    return b"".join(piece.data for piece in lay_out(files, time))


def _with_envelope(**changes: object) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files[ATTESTATION] = canonical_json(json.loads(files[ATTESTATION]) | changes)

    return change


def _altered_statement(files: dict[str, bytes]) -> None:
    envelope = json.loads(files[ATTESTATION])
    statement = base64.b64decode(envelope["payload"]).replace(b'"pass"', b'"fail"')
    files[ATTESTATION] = canonical_json(envelope | {"payload": base64.b64encode(statement).decode()})


@pytest.mark.parametrize(
    ("key", "change", "expected"),
    [
        (OTHER.public, lambda files: None, f"signature: expected one of key {OTHER.public.key_id}, which was given"),
        (KEY.public, lambda files: files.pop(ATTESTATION), "got none: the archive is not signed"),
        (
            KEY.public,
            _with_envelope(signatures=[{"keyid": KEY.public.key_id, "sig": base64.b64encode(bytes(64)).decode()}]),
            "over this statement; got a broken one",
        ),
        (
            KEY.public,
            _with_envelope(signatures=[{"keyid": "0" * 64, "sig": base64.b64encode(bytes(64)).decode()}]),
            "got one of key '0000",
        ),
        (KEY.public, _altered_statement, "over this statement; got a broken one"),
        (None, _altered_statement, "statement: expected what the manifest states; got b'"),
        (None, _with_envelope(payload="{}"), "payload: expected base64; got '{}'"),
        (None, _with_envelope(payloadType="text/plain"), "payloadType: expected application/vnd.in-toto+json"),
        (None, _with_envelope(signatures=[]), "signatures: expected"),
        (None, _with_envelope(publicKey="believe me"), "publicKey: expected no field of this name"),
        (None, lambda files: files.update({ATTESTATION: files[ATTESTATION] + b" "}), "form: expected JSON as it is"),
    ],
)
def test_what_is_wrong_with_a_signature_is_said(
    signed: bytes, key: PublicKey | None, change: Callable[[dict[str, bytes]], None], expected: str
) -> None:
    said = [str(difference) for difference in verify_bytes(_repacked(signed, change), key).differences]
    assert any(line.startswith(ATTESTATION) and expected in line for line in said), said
    assert all(line.isprintable() for line in said)


def test_new_key_is_its_owners_alone_signs_and_is_never_overwritten(tmp_path: Path) -> None:
    made = new_key(tmp_path)
    assert stat.S_IMODE(made.private.stat().st_mode) == 0o600
    key = find_signing_key(made.private, {})
    assert key is not None
    assert read_public_key(made.public).verifies(key.sign(b"hello").content, b"hello")
    assert not read_public_key(made.public).verifies(key.sign(b"hello").content, b"hallo")
    with pytest.raises(UsageError, match="expected no key here yet"):
        new_key(tmp_path)
    made.private.unlink()
    with pytest.raises(UsageError, match="expected no key here yet"):
        new_key(tmp_path)


def test_key_is_told_apart_by_the_digest_that_openssl_gives(tmp_path: Path) -> None:
    made = new_key(tmp_path)
    command = ["openssl", "pkey", "-pubin", "-in", str(made.public), "-outform", "DER"]
    try:
        der = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("needs openssl")
    assert hashlib.sha256(der).hexdigest() == made.key_id


def test_key_comes_from_a_file_or_the_environment_as_text_or_path(tmp_path: Path) -> None:
    made = new_key(tmp_path)
    named, as_text = {KEY_VARIABLE: str(made.private)}, {KEY_VARIABLE: made.private.read_text()}
    found = [find_signing_key(made.private, {}), find_signing_key(None, named), find_signing_key(None, as_text)]
    assert [key.public.key_id for key in found if key] == [made.key_id] * 3
    assert find_signing_key(None, {}) is None


def test_key_in_the_environment_is_never_shown(tmp_path: Path) -> None:
    secret = new_key(tmp_path).private.read_text().splitlines()[1]
    with pytest.raises(UsageError, match="got neither") as caught:
        find_signing_key(None, {KEY_VARIABLE: secret})
    assert secret not in str(caught.value)


def test_encrypted_key_needs_its_passphrase(tmp_path: Path) -> None:
    made = new_key(tmp_path, "correct horse")
    key = find_signing_key(made.private, {PASSPHRASE_VARIABLE: "correct horse"})
    assert key is not None
    assert key.public.key_id == made.key_id
    with pytest.raises(UsageError, match="encrypted; put its passphrase into EDGEPROOF_KEY_PASSPHRASE"):
        find_signing_key(made.private, {})
    with pytest.raises(UsageError, match="got one that EDGEPROOF_KEY_PASSPHRASE does not open"):
        find_signing_key(made.private, {PASSPHRASE_VARIABLE: "wrong"})


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    made = new_key(tmp_path)
    text = tmp_path / "text.pem"
    text.write_text("hello")
    with pytest.raises(UsageError, match="got a private key, which belongs on the signer's machine alone"):
        read_public_key(made.private)
    with pytest.raises(UsageError, match=r"expected an ed25519 private key .* got something else"):
        find_signing_key(made.public, {})
    for path in (text, tmp_path / "nowhere.pem"):
        with pytest.raises(UsageError, match=path.name):
            read_public_key(path)
        with pytest.raises(UsageError, match=path.name):
            find_signing_key(path, {})


def test_a_passphrase_that_is_too_long_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected at most 1023 bytes; got 1100"):
        new_key(tmp_path / "keys", "a" * 1100)
    assert not (tmp_path / "keys").exists()
