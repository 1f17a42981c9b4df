"""What tampering starts from: signed archives, and ways to pack their files otherwise, as attackers and tools do."""

import base64
import gzip
import io
import json
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from pipeline.release.archive import lay_out, parse_time, zip_time
from pipeline.release.attestation import ATTESTATION, attest
from pipeline.release.manifest import LABELS, MANIFEST, Manifest, canonical_json, describe
from pipeline.release.signing import SigningKey
from pipeline.release.tarball import GZIP, lay_out_tgz, read_tgz
from pipeline.release.wheel import record_bytes, record_of
from pipeline.release.zipped import read_zip

Files = dict[str, bytes]


@dataclass(frozen=True)
class Entry:
    """A file of an archive as another program would pack it."""

    name: str
    data: bytes
    mode: int = 0o644
    seconds_late: int = 0
    link: str | None = None


@dataclass(frozen=True)
class Victim:
    """A signed archive that is as it was packed, and who is believed."""

    kind: str
    raw: bytes
    key: SigningKey
    stranger: SigningKey
    files: Files = field(default_factory=dict)
    manifest: Manifest | None = None

    @property
    def is_zip(self) -> bool:
        """Whether it is no tar archive in gzip."""
        return not self.raw.startswith(GZIP)

    @property
    def own(self) -> Manifest:
        """Its manifest, which was read."""
        assert self.manifest is not None
        return self.manifest

    def pack(self, files: Files) -> bytes:
        """Return other files, packed as we pack."""
        layout = lay_out if self.is_zip else lay_out_tgz
        return b"".join(piece.data for piece in layout(files, parse_time(self.own.created_at)))

    def write(self, entries: list[Entry], *, compress: bool = False) -> bytes:
        """Return files as Python's own zip or tar writer packs them."""
        time = parse_time(self.own.created_at)
        stream = io.BytesIO()
        if self.is_zip:
            method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
                warnings.simplefilter("ignore", UserWarning)  # of doubled names, which are the point
                for entry in entries:
                    info = zipfile.ZipInfo(entry.name, zip_time(time + timedelta(seconds=entry.seconds_late)))
                    kind, info.create_system = 0o120000 if entry.link else 0o100000, 3
                    info.external_attr = (kind | entry.mode) << 16
                    archive.writestr(info, (entry.link or "").encode() or entry.data, compress_type=method)
            return stream.getvalue()
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for entry in entries:
                member = tarfile.TarInfo(entry.name)
                member.mode, member.size = entry.mode, 0 if entry.link else len(entry.data)
                member.mtime = int(time.timestamp()) + entry.seconds_late
                if entry.link:
                    member.type, member.linkname = tarfile.SYMTYPE, entry.link
                tar.addfile(member, io.BytesIO(entry.data))
        return gzip.compress(stream.getvalue(), mtime=0) if compress else stored_gzip(stream.getvalue())

    def entries(self) -> list[Entry]:
        """Return its files, to be packed otherwise."""
        return [Entry(name, self.files[name]) for name in sorted(self.files)]

    def path(self, name: str) -> str:
        """Return where a file of the release lies in it."""
        if name in (MANIFEST, ATTESTATION, LABELS) or name.startswith("golden"):
            return self.own.root + name
        return self.own.model if name == "model" else self.own.evidence + name

    def edited(self, name: str, change: Callable[[bytes], bytes], *, honest: bool = False) -> bytes:
        """Return it with one file changed; `honest` writes all digests anew, as an attacker does."""
        path = self.path(name)
        files = {**self.files, path: change(self.files[path])}
        return self.pack(self.with_digests(files) if honest else files)

    def table(self, name: str, *, honest: bool = False, **changes: object) -> bytes:
        """Return it with fields of a JSON file changed."""
        return self.edited(name, lambda text: canonical_json(json.loads(text) | changes), honest=honest)

    def with_digests(self, files: Files, signer: SigningKey | None = None) -> Files:
        """Return files with digests, RECORD and, with a signer, the attestation written anew."""
        root, record = self.own.root, record_of(files)
        derived = {root + MANIFEST, root + ATTESTATION, record}
        listed = {
            name: facts.model_dump()
            for name, facts in describe(
                {name: content for name, content in files.items() if name not in derived}
            ).items()
        }
        files = {**files, root + MANIFEST: canonical_json(json.loads(files[root + MANIFEST]) | {"files": listed})}
        if signer is not None:
            manifest = Manifest.model_validate_json(files[root + MANIFEST])
            files[root + ATTESTATION] = attest(manifest, signer)
        if record:
            files[record] = record_bytes({name: files[name] for name in files if name != record}, record)
        return files

    def envelope(self, **changes: object) -> bytes:
        """Return it with fields of the attestation changed."""
        return self.pack(self.recorded({**self.files, self.path(ATTESTATION): self._envelope(changes)}))

    def stripped(self) -> bytes:
        """Return it without its attestation."""
        return self.pack(self.recorded({k: v for k, v in self.files.items() if k != self.path(ATTESTATION)}))

    def statement(self) -> bytes:
        """Return what was signed."""
        return base64.b64decode(json.loads(self.files[self.path(ATTESTATION)])["payload"])

    def _envelope(self, changes: dict[str, object]) -> bytes:
        return canonical_json(json.loads(self.files[self.path(ATTESTATION)]) | changes)

    def recorded(self, files: Files) -> Files:
        """Return files with a wheel's RECORD written anew."""
        if record := record_of(files):
            files = {**files, record: record_bytes({k: v for k, v in files.items() if k != record}, record)}
        return files


@dataclass(frozen=True)
class Tampering:
    """What was done."""

    name: str
    done: str
    make: Callable[[Victim], bytes | list[bytes] | None]
    """Returns the tampered archive, several that must all be caught, or None where the kind has no such thing."""
    needs_key: bool = False
    """Whether --key is what catches it: what is left is a whole archive, of somebody else or of nobody."""


def victim(kind: str, raw: bytes, key: SigningKey, stranger: SigningKey) -> Victim:
    """Return an archive with what it holds."""
    contents = read_tgz(raw) if raw.startswith(GZIP) else read_zip(raw)
    (place,) = (name for name in contents.files if name.rpartition("/")[2] == MANIFEST)
    manifest = Manifest.model_validate_json(contents.files[place])
    return Victim(kind, raw, key, stranger, dict(contents.files), manifest)


def stored_gzip(content: bytes) -> bytes:
    """Return gzip of stored blocks, as we write it."""
    starts = range(0, len(content), 65535)
    blocks = [(start + 65535 >= len(content), content[start : start + 65535]) for start in starts]
    body = b"".join(struct.pack("<B2H", last, len(part), len(part) ^ 0xFFFF) + part for last, part in blocks)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + struct.pack("<2I", zlib.crc32(content), len(content))


def flipped(raw: bytes, at: int) -> bytes:
    """Return bytes with one bit of one byte changed."""
    return raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]
