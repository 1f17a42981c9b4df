"""What a release's packer states and signs: an in-toto statement with SLSA provenance in a DSSE envelope.

Rule: the statement follows from the manifest, so that whoever verifies derives it again and compares all of it.
in-toto attestation framework v1, SLSA provenance v1, DSSE v1.0 (its protocol and its PAE). What is stated is Build L1:
where the model comes from and what it was made for; no build platform vouches for it but the key.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from pipeline.release.manifest import MANIFEST, Manifest, canonical_json, manifest_bytes
from pipeline.release.packing import Difference
from pipeline.release.signing import PublicKey, Signer
from pipeline.release.text import brief, violations

ATTESTATION = "attestation.dsse.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:edgeproof:release:1"
BUILDER = "urn:edgeproof:packer:1"


class EnvelopeSignature(BaseModel):
    """Who signed, and what the key says."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    keyid: str
    sig: str


class Envelope(BaseModel):
    """A DSSE envelope with one signature."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    payload: str
    payloadType: str  # noqa: N815 - the name in the standard
    signatures: tuple[EnvelopeSignature, ...] = Field(min_length=1, max_length=1)


def attest(manifest: Manifest, signer: Signer) -> bytes:
    """Return the envelope in its only form: the statement about an archive, signed."""
    statement = statement_bytes(manifest)
    signature = signer.sign(pre_authentication(statement))
    return _envelope_bytes(
        Envelope(
            payload=base64.b64encode(statement).decode(),
            payloadType=PAYLOAD_TYPE,
            signatures=(EnvelopeSignature(keyid=signature.key_id, sig=base64.b64encode(signature.content).decode()),),
        )
    )


def statement_bytes(manifest: Manifest) -> bytes:
    """Return the in-toto statement about the archive of a manifest: every file of it, and where they come from."""
    digests = {name: facts.sha256 for name, facts in manifest.files.items()}
    digests[manifest.root + MANIFEST] = hashlib.sha256(manifest_bytes(manifest)).hexdigest()
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [_resource(name, digest) for name, digest in sorted(digests.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "recipe": manifest.name,
                    "version": manifest.version,
                    "deployment": manifest.deployment,
                    "platform": manifest.platform,
                },
                "internalParameters": {
                    "precision": manifest.precision,
                    "runtime": f"{manifest.runtime.target} {manifest.runtime.version}",
                    "verdict": manifest.verdict.value,
                },
                "resolvedDependencies": [*_origins(manifest)],
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": {"finishedOn": manifest.created_at},
            },
        },
    }
    return json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def pre_authentication(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return DSSE's pre-authentication encoding: what is signed instead of the payload alone."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def key_id_of(content: bytes) -> str | None:
    """Return whose signature an envelope claims to have; None where it is no envelope."""
    try:
        return Envelope.model_validate_json(content).signatures[0].keyid
    except ValidationError:
        return None


def check_attestation(manifest: Manifest, files: Mapping[str, bytes], key: PublicKey | None) -> Iterator[Difference]:
    """Compare the attestation with what the manifest states; with a key, the signature too.

    A key in the archive would prove nothing, and none is looked for.
    """
    name = manifest.root + ATTESTATION
    content = files.get(name)
    if content is None:
        if key is not None:
            yield Difference(name, "presence", f"a signature of key {key.key_id}", "none: the archive is not signed")
        return
    try:
        envelope = Envelope.model_validate_json(content)
    except ValidationError as error:
        yield from (Difference(name, *violation) for violation in violations(error))
        return
    if _envelope_bytes(envelope) != content:
        yield Difference(name, "form", "JSON as it is packed: sorted, indented, nothing else", "other text")
    if envelope.payloadType != PAYLOAD_TYPE:
        yield Difference(name, "payloadType", PAYLOAD_TYPE, brief(envelope.payloadType))
    statement = _decoded(envelope.payload)
    if statement is None:
        yield Difference(name, "payload", "base64", brief(envelope.payload))
        return
    if statement != (expected := statement_bytes(manifest)):
        yield Difference(name, "statement", "what the manifest states", _first_difference(expected, statement))
    if key is not None:
        yield from _check_signature(name, envelope.signatures[0], statement, key)


def _check_signature(name: str, signature: EnvelopeSignature, statement: bytes, key: PublicKey) -> Iterator[Difference]:
    content = _decoded(signature.sig)
    is_valid = content is not None and key.verifies(content, pre_authentication(statement))
    if signature.keyid != key.key_id:
        expected = f"one of key {key.key_id}, which was given"
        yield Difference(name, "signature", expected, f"one of key {brief(signature.keyid)}")
    elif not is_valid:
        yield Difference(name, "signature", f"one of key {key.key_id} over this statement", "a broken one")


def _origins(manifest: Manifest) -> Iterator[JsonValue]:
    """Yield what the archive was made from: the release where it is a package, then what the model descends from."""
    if manifest.release is not None:
        yield _resource(f"release {manifest.name} {manifest.version} {manifest.deployment}", manifest.release)
    for name, digest in sorted(manifest.lineage.items()):
        if re.fullmatch("[0-9a-f]{64}", digest):
            yield _resource(name, digest)


def _resource(name: str, sha256: str) -> JsonValue:
    return {"name": name, "digest": {"sha256": sha256}}


def _envelope_bytes(envelope: Envelope) -> bytes:
    return canonical_json(envelope.model_dump(mode="json"))


def _decoded(text: str) -> bytes | None:
    """Return the bytes of standard base64 in its only form."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return content if base64.b64encode(content).decode() == text else None


def _first_difference(expected: bytes, got: bytes) -> str:
    at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), min(len(expected), len(got)))
    return f"{brief(got[max(0, at - 20) : at + 40])} at byte {at} of it"
