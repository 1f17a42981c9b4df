"""Tamperings with an archive: each returns what an attacker, or an accident, would leave."""

import base64
import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.tampering_lab import Entry, Tampering, Victim, flipped, stored_gzip
from pipeline.release.attestation import ATTESTATION
from pipeline.release.bill import BILL
from pipeline.release.manifest import GOLDEN, LABELS, MANIFEST, REPORT
from pipeline.release.model_card import MODEL_CARD
from pipeline.release.wheel import record_of

NUM_FLIPS, NUM_EDITS, NUM_CUTS = 300, 100, 50
BOMB_BYTES = 100_000_000


def bytes_(seed: int = 0) -> Iterator[Tampering]:
    """Yield accidents: on a disk, in a download, by an editor."""

    def flips(each: Victim) -> list[bytes]:
        chosen = random.Random(seed).sample(range(len(each.raw)), NUM_FLIPS)
        return [flipped(each.raw, at) for at in chosen]

    def edits(each: Victim) -> list[bytes]:
        chance, raw = random.Random(seed + 1), each.raw
        places = [(chance.randrange(len(raw)), chance.randrange(1, 40)) for _ in range(NUM_EDITS)]
        return [raw[:at] + chance.randbytes(size // 2) + raw[at + size :] for at, size in places]

    def cuts(each: Victim) -> list[bytes]:
        return [each.raw[:size] for size in random.Random(seed + 2).sample(range(len(each.raw)), NUM_CUTS)]

    yield Tampering("flipped bits", f"one bit each at {NUM_FLIPS} random places of the whole file", flips)
    yield Tampering("random edits", f"runs of bytes replaced by others of another length, {NUM_EDITS} times", edits)
    yield Tampering("cut off", f"the end missing, at {NUM_CUTS} places", cuts)
    yield Tampering("appended bytes", "a newline after the end", lambda each: each.raw + b"\n")
    yield Tampering("prepended bytes", "a shebang before the beginning", lambda each: b"#!/bin/sh\n" + each.raw)
    yield Tampering("another archive behind it", "the file twice", lambda each: each.raw + each.raw)
    yield Tampering("empty", "no byte at all", lambda each: b"")


def contents() -> Iterator[Tampering]:
    """Yield changes of files by somebody who packs as we do, with digests left or written anew."""
    yield Tampering("model changed", "one bit of it", lambda each: each.edited("model", lambda c: flipped(c, 100)))
    yield Tampering(
        "model changed, digests too",
        "and every digest anew",
        lambda each: each.edited("model", lambda c: flipped(c, 100), honest=True),
    )
    yield Tampering("files swapped", "labels and model card in each other's place", _swapped)
    yield Tampering(
        "labels changed, digests too",
        "two exchanged",
        lambda each: each.edited(LABELS, lambda c: b"".join(reversed(c.splitlines(True))), honest=True),
    )
    yield Tampering(
        "report changed, digests too", "its verdict", lambda each: each.table(REPORT, honest=True, verdict="undecided")
    )
    yield Tampering(
        "golden answers changed, digests too",
        "all logits 0",
        lambda each: each.edited("golden/logits.bin", lambda c: bytes(len(c)), honest=True),
    )
    yield Tampering(
        "golden labels changed, digests too",
        "all 0",
        lambda each: each.table(GOLDEN, honest=True, labels=[0] * 8, scores=[1.0] * 8),
    )
    yield Tampering(
        "bill changed, digests too",
        "the model's licence",
        lambda each: each.edited(BILL, lambda c: c.replace(b"Apache-2.0", b"MIT"), honest=True),
    )
    yield Tampering(
        "model card changed", "a word", lambda each: each.edited(MODEL_CARD, lambda c: c.replace(b"e", b"a", 1))
    )
    yield Tampering("wrapper changed", "a line added to the largest file that is not the release's", _wrapper_changed)
    yield Tampering("file added", "a script", lambda each: each.pack({**each.files, "zz/install.sh": b"rm -rf ~\n"}))
    yield Tampering("file missing", "the report", lambda each: _without(each, each.path(REPORT)))
    yield Tampering("model missing", "it alone", lambda each: _without(each, each.own.model))
    yield Tampering("golden answers missing", "golden.json", lambda each: _without(each, each.path(GOLDEN)))
    yield Tampering("RECORD changed", "one digest of the wheel's own list", _record_changed)


def manifests() -> Iterator[Tampering]:
    """Yield changes of the manifest alone."""
    yield Tampering("manifest missing", "it alone", lambda each: _without(each, each.path(MANIFEST)))
    yield Tampering(
        "two manifests",
        "another one in a folder of its own",
        lambda each: each.pack({**each.files, "zz/manifest.json": each.files[each.path(MANIFEST)]}),
    )
    yield Tampering("newer schema", "schema_version 99", lambda each: each.table(MANIFEST, schema_version=99))
    yield Tampering("older schema", "schema_version 2", lambda each: each.table(MANIFEST, schema_version=2))
    yield Tampering("broken JSON", "the last brace missing", lambda each: each.edited(MANIFEST, lambda c: c[:-2]))
    yield Tampering(
        "JSON nested too deeply", "a million brackets", lambda each: each.edited(MANIFEST, lambda c: b"[" * 10**6)
    )
    yield Tampering(
        "JSON rewritten",
        "the same on one line",
        lambda each: each.edited(MANIFEST, lambda c: json.dumps(json.loads(c)).encode()),
    )
    yield Tampering("better figures", "latency and accuracy", _better_figures)
    yield Tampering("failed verdict", "in the manifest", lambda each: each.table(MANIFEST, verdict="fail"))
    yield Tampering(
        "unknown field", "one that nobody reads", lambda each: each.table(MANIFEST, trusted_key="believe me")
    )
    yield Tampering("model outside", "model = ../model.onnx", lambda each: each.table(MANIFEST, model="../model.onnx"))
    yield Tampering(
        "another time", "created_at a year later", lambda each: each.table(MANIFEST, created_at="2036-01-01T00:00:00Z")
    )
    yield Tampering(
        "another root", "the manifest says that it lies elsewhere", lambda each: each.table(MANIFEST, root="elsewhere/")
    )


def archives() -> Iterator[Tampering]:
    """Yield the same files in other archives, and archives that are traps."""
    late = {"seconds_late": 20}
    yield Tampering("compressed", "packed again by deflate", lambda each: each.write(each.entries(), compress=True))
    yield Tampering("bomb", f"a file of {BOMB_BYTES:,} zeros, compressed", _bomb)
    yield Tampering(
        "another packer",
        "Python's own, with names out of order",
        lambda each: each.write(list(reversed(each.entries()))),
    )
    yield Tampering("times", "20 seconds later", lambda each: each.write([replace(e, **late) for e in each.entries()]))
    yield Tampering(
        "permissions", "executable", lambda each: each.write([replace(e, mode=0o755) for e in each.entries()])
    )
    for name, done in (
        ("../../etc/cron.d/evil", "path traversal"),
        ("/etc/passwd", "an absolute path"),
        ("C:evil.dll", "a drive"),
        ("a\\..\\b", "backslashes"),
        ("\x1b[2Jclear", "control characters"),
        (".hidden/x", "a folder that begins with a dot"),
    ):
        yield Tampering(f"name: {done}", f"a file {name!r} more", _named(name))
    yield Tampering(
        "doubled name",
        "the model twice",
        lambda each: each.write(
            sorted([*each.entries(), Entry(each.own.model, b"other")], key=lambda entry: entry.name)
        ),
    )
    yield Tampering(
        "twin", "the model's name in capitals", lambda each: each.pack({**each.files, each.own.model.upper(): b"other"})
    )
    yield Tampering(
        "file as a folder",
        "something below the model",
        lambda each: each.pack({**each.files, f"{each.own.model}/x": b"other"}),
    )
    yield Tampering(
        "symbolic link",
        "the labels lead to /etc/passwd",
        lambda each: each.write(
            [replace(e, link="/etc/passwd") if e.name == each.path(LABELS) else e for e in each.entries()]
        ),
    )
    yield Tampering(
        "too many files",
        "2,000",
        lambda each: each.pack({**each.files, **{f"zz/{index:04}": b"" for index in range(2000)}}),
    )
    yield Tampering("header lies", "the declared size of the model", _lying_size)
    yield Tampering("header extended", "a field that other readers ignore", _extended)


def signatures() -> Iterator[Tampering]:
    """Yield what only a key can tell: all of these are looked at with --key."""
    with_key = {"needs_key": True}
    yield Tampering("signature stripped", "the attestation removed", Victim.stripped, **with_key)
    yield Tampering(
        "wrong key",
        "all written anew and signed by somebody else",
        lambda each: each.pack(each.with_digests(dict(each.files), each.stranger)),
        **with_key,
    )
    yield Tampering(
        "forged", "a sentence in the model card, digests anew, signed by somebody else", _forged, **with_key
    )
    yield Tampering("borrowed key id", "somebody else's signature under the id of the key", _borrowed, **with_key)
    yield Tampering(
        "broken signature",
        "64 zeros in its place",
        lambda each: each.envelope(
            signatures=[{"keyid": each.key.public.key_id, "sig": base64.b64encode(bytes(64)).decode()}]
        ),
        **with_key,
    )
    yield Tampering(
        "altered statement",
        "another verdict under the same signature",
        lambda each: each.envelope(payload=base64.b64encode(each.statement().replace(b'"pass"', b'"best"')).decode()),
        **with_key,
    )
    yield Tampering(
        "another payload type", "text/plain", lambda each: each.envelope(payloadType="text/plain"), **with_key
    )
    yield Tampering("key in the package", "signed by somebody else, whose key lies beside it", _own_key, **with_key)
    yield Tampering("two signatures", "a stranger's beside the key's", _two_signatures, **with_key)


def _swapped(each: Victim) -> bytes:
    one, other = each.path(LABELS), each.path(MODEL_CARD)
    return each.pack({**each.files, one: each.files[other], other: each.files[one]})


def _without(each: Victim, path: str) -> bytes:
    return each.pack({name: content for name, content in each.files.items() if name != path})


def _wrapper_changed(each: Victim) -> bytes | None:
    release = {each.path(name) for name in ("model", REPORT, BILL, MODEL_CARD, LABELS, MANIFEST, ATTESTATION)}
    own = [name for name in each.files if name not in release and name.endswith((".py", ".js", ".jar", ".swift"))]
    if not own:
        return None
    path = max(own, key=lambda name: len(each.files[name]))
    return each.pack({**each.files, path: each.files[path] + b"\n// evil\n"})


def _record_changed(each: Victim) -> bytes | None:
    if (record := record_of(each.files)) is None:
        return None
    return each.pack({**each.files, record: each.files[record].replace(b"sha256=", b"sha256=A", 1)})


def _better_figures(each: Victim) -> bytes:
    accuracy = each.own.model_dump(mode="json")["accuracy"]
    return each.table(MANIFEST, accuracy={**accuracy, "on_device": 1.0})


def _bomb(each: Victim) -> bytes:
    packed = each.entries()
    return each.write([*packed, Entry("zz/bomb", bytes(BOMB_BYTES))], compress=True)


def _named(name: str) -> Callable[[Victim], bytes]:
    return lambda each: each.pack({**each.files, name: b"evil"})


def _lying_size(each: Victim) -> bytes:
    if each.is_zip:
        at = each.raw.rindex(each.own.model.encode()) - 46 + 24  # uncompressed size in the directory (APPNOTE 4.3.12)
        return each.raw[:at] + b"\xff\xff\xff\x7f" + each.raw[at + 4 :]
    tar = bytearray(gzip.decompress(each.raw))
    name = each.own.model.encode()
    at = next(at for at in range(0, len(tar), 512) if tar[at : at + len(name) + 1] == name + b"\0")
    tar[at + 124 : at + 135] = b"77777777777"  # its size, in octal
    return stored_gzip(bytes(tar))


def _extended(each: Victim) -> bytes:
    if each.is_zip:
        return each.raw[:-2] + b"\x05\x00hello"  # a comment of the archive
    return each.raw[:3] + b"\x08" + each.raw[4:10] + b"evil\0" + each.raw[10:]  # the name of a file, in gzip's header


def _forged(each: Victim) -> bytes:
    files = {**each.files, each.path(MODEL_CARD): each.files[each.path(MODEL_CARD)] + b"\nSafe for cars.\n"}
    return each.pack(each.with_digests(files, each.stranger))


def _borrowed(each: Victim) -> bytes:
    files = each.with_digests(dict(each.files), each.stranger)
    path = each.path(ATTESTATION)
    files[path] = files[path].replace(each.stranger.public.key_id.encode(), each.key.public.key_id.encode())
    return each.pack(each.recorded(files))


def _own_key(each: Victim) -> bytes:
    files = {**each.files, "zz/signing_key.pub.pem": each.stranger.public.pem()}
    return each.pack(each.with_digests(files, each.stranger))


def _two_signatures(each: Victim) -> bytes:
    path = each.path(ATTESTATION)
    theirs = json.loads(each.with_digests(dict(each.files), each.stranger)[path])["signatures"]
    return each.envelope(signatures=[*theirs, *json.loads(each.files[path])["signatures"]])
