"""Seal a platform's files in one archive with a manifest of their own. Rule: one form only, byte by byte.

The archive is what app teams get and what `edgeproof verify` takes as one file.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from pipeline.release.archive import MAX_BYTES, is_safe_name, lay_out, parse_time
from pipeline.release.attestation import ATTESTATION, attest
from pipeline.release.bill import BILL, Library, make_bill
from pipeline.release.manifest import MANIFEST, Manifest, describe, manifest_bytes
from pipeline.release.packing import LayOut
from pipeline.release.payload import Payload
from pipeline.release.signing import Signer
from pipeline.release.tarball import lay_out_tgz
from pipeline.release.wheel import record_bytes, record_of
from targets.errors import EdgeproofError

Container = Literal["zip", "tgz"]

_LAY_OUT: Mapping[Container, LayOut] = {"zip": lay_out, "tgz": lay_out_tgz}


def seal(
    files: Mapping[str, bytes],
    payload: Payload,
    *,
    platform: str,
    root: str,
    model: str,
    container: Container = "zip",
    evidence: str | None = None,
    libraries: Sequence[Library] = (),
    signer: Signer | None = None,
) -> bytes:
    """Return the archive of `files` and of what every package carries of the release, with manifest and attestation.

    Args:
        files: the platform's own files by path in the archive; what `payload.placed` names may be among them, as it is.
        payload: the release that they were made from.
        platform: kind of the platform.
        root: folder in the archive of manifest.json, attestation.dsse.json, labels.txt and golden answers; "" for the
            top, else ending with a slash: "assets/edgeproof/digits/" in an AAR, "package/release/" in an npm archive.
        model: path of the model in the archive.
        container: a stored zip archive; or a tar archive in gzip, likewise stored.
        evidence: folder of report.json, bill of materials, model card, licences; `root` if left out.
        libraries: what the package needs beside the model, for a bill of materials of its own; without any it carries
            the release's bill.
        signer: who signs the attestation; None leaves it out.

    A wheel's RECORD is derived: made here where there is a NAME.dist-info/WHEEL, and no part of the manifest.

    Raises:
        EdgeproofError: the archive is too large, or a name too long for it.
    """
    evidence = root if evidence is None else evidence
    carried = payload.placed(model=model, root=root, evidence=evidence)
    assert all(files[name] == content for name, content in carried.items() if name in files), "altered evidence"
    sealed = {**files, **carried}
    assert all(is_safe_name(name) for name in sealed), sorted(sealed)
    changes = {
        "platform": platform,
        "root": root,
        "evidence": evidence,
        "model": model,
        "release": hashlib.sha256(manifest_bytes(payload.manifest)).hexdigest(),
        "files": describe(sealed),
    }
    manifest = Manifest.model_validate({**dict(payload.manifest), **changes})
    if libraries:
        sealed[evidence + BILL] = make_bill(manifest, libraries)
        manifest = manifest.model_copy(update={"files": describe(sealed)})
    sealed[root + MANIFEST] = manifest_bytes(manifest)
    if signer is not None:
        sealed[root + ATTESTATION] = attest(manifest, signer)
    if record := record_of(sealed):
        sealed[record] = record_bytes(sealed, record)
    if (size := sum(map(len, sealed.values()))) > MAX_BYTES - 2**20:
        raise EdgeproofError(
            f"{manifest.name} for {platform}: expected at most {MAX_BYTES} bytes in an archive; got {size}; "
            "ship a smaller model"
        )
    return b"".join(piece.data for piece in _LAY_OUT[container](sealed, parse_time(manifest.created_at)))
