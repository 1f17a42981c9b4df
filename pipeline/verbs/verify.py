"""`edgeproof verify`: whether a release or a package is, byte by byte, what was packed, and who signed it."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue
from rich.text import Text

from pipeline.release.attestation import ATTESTATION
from pipeline.release.manifest import Manifest
from pipeline.release.signing import PublicKey, read_public_key
from pipeline.release.verify import Verification, verify_release
from pipeline.verbs.output import console_for_people, write_json

UNSIGNED = (
    "WARNING: NOT SIGNED: this finds accidents, not forgeries: whoever changes a file can write every digest anew. Ask "
    "for a signed package, and check it with --key PUBLIC.pem"
)


def run_verify(path: Path, key_file: Path | None, *, as_json: bool) -> int:
    """Print what differs in a release or package; 1 where anything does.

    Raises:
        UsageError: the key is none.
        EdgeproofError: there is no file that can be read.
    """
    key = read_public_key(key_file) if key_file else None
    verification = verify_release(path, key)
    if as_json:
        write_json(_as_json(path, verification))
        return 0 if verification.ok else 1
    console = console_for_people(as_json=False)
    for line in _lines(path, verification, key):
        console.print(Text(line), soft_wrap=True)
    return 0 if verification.ok else 1


def _as_json(path: Path, verification: Verification) -> JsonValue:
    manifest = verification.manifest
    return {
        "release": str(path),
        "ok": verification.ok,
        "platform": manifest.platform if manifest else None,
        "signed_by": verification.signed_by,
        "warning": None if verification.signed_by else UNSIGNED,
        "is_trusted": verification.is_trusted,
        "differences": [str(difference) for difference in verification.differences],
    }


def _lines(path: Path, verification: Verification, key: PublicKey | None) -> Iterator[str]:
    manifest = verification.manifest
    yield from (f"✗ {difference}" for difference in verification.differences)
    if not verification.ok or manifest is None:
        yield f"{path}: NOT as it was packed: {len(verification.differences)} difference(s)"
        return
    accepted = ", undecided budgets accepted" if manifest.accepted_undecided else ""
    for_platform = "" if manifest.platform == "any" else f", packaged for {manifest.platform}"
    yield (
        f"✓ {path}: {manifest.name} {manifest.version} of {manifest.deployment}{for_platform}: all "
        f"{len(manifest.files)} files as packed at {manifest.created_at}; verdict {manifest.verdict.value}{accepted}"
    )
    yield _signature_line(verification, manifest, key)


def _signature_line(verification: Verification, manifest: Manifest, key: PublicKey | None) -> str:
    if key is not None:
        return f"✓ signed by key {key.key_id}, which was given"
    if verification.signed_by is None:
        return UNSIGNED
    return (
        f"WARNING: SIGNATURE NOT CHECKED: {manifest.root}{ATTESTATION} names key {verification.signed_by}, and so "
        "could anybody: check it with --key PUBLIC.pem, the signer's public key from another source than this file"
    )
