"""What an archive shows of itself, held against the one way of packing. Rule: nothing is ever unpacked.

An entry that is compressed, encrypted, a link, or not where it says, is a difference and is not read; what can be
read cannot be larger than the archive. So there is no bomb to go off and nothing to write outside a folder.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.release.archive import Piece, is_safe_name
from pipeline.release.text import brief

ARCHIVE = "archive"
"""Stands for the whole file where a difference lies in none of its files."""

LayOut = Callable[[Mapping[str, bytes], datetime], Iterator[Piece]]
"""Lays an archive of files out, from its first byte to its last."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was packed; every text is one printable line."""

    file: str
    """Name in the archive, or ARCHIVE."""
    aspect: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.file}: {self.aspect}: expected {self.expected}; got {self.got}"


@dataclass(frozen=True)
class Contents:
    """What could be read of an archive, and what is wrong with it so far."""

    lay_out: LayOut
    """How an archive of this kind is laid out."""
    say_time: Callable[[datetime], object]
    """What an archive of this kind can say of a time."""
    differences: tuple[Difference, ...]
    names: frozenset[str] = frozenset()
    """Of all entries, read or not."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """By name; without what is not stored as it is."""
    times: Mapping[str, object] = field(default_factory=dict)
    """Of all entries, by name."""
    sums: Mapping[str, int] = field(default_factory=dict)
    """CRC-32 of entries, by name, where the archive has them."""


def check_names(names: list[str]) -> Iterator[Difference]:
    """Look for names that are no plain paths, stand twice, or are out of order."""
    for name in dict.fromkeys(names):
        if not is_safe_name(name):
            yield Difference(shown(name), "name", "a plain relative path inside the release", brief(name))
    for name, count in Counter(map(str.casefold, names)).items():
        if count > 1:
            got = f"{count}, upper and lower case taken as one"
            yield Difference(shown(name), "name", "one file of this name", got)
    if names != sorted(names):
        yield Difference(ARCHIVE, "order", "names in sorted order", brief(names))


def check_folders(names: Iterable[str]) -> Iterator[Difference]:
    """Look for names of files that others take for a folder."""
    taken = {name for name in names if is_safe_name(name)}
    for name in sorted(taken):
        parts = name.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) in taken:
                yield Difference(shown(folder), "name", f"a folder, which {shown(name)} is in", "a file too")


def check_times(contents: Contents, created_at: datetime) -> Iterator[Difference]:
    """Compare the times of all entries with the release's."""
    expected = contents.say_time(created_at)
    for name, time in contents.times.items():
        if time != expected:
            yield Difference(shown(name), "time", f"the manifest's {expected}", str(time))


def check_bytes(contents: Contents, created_at: datetime, raw: bytes) -> Iterator[Difference]:
    """Lay the archive out again from its own files, and compare all of it up to the first difference."""
    start = 0
    for piece in contents.lay_out(contents.files, created_at):
        found = raw[start : start + len(piece.data)]
        if found != piece.data:
            yield _first_difference(piece.label, start, piece.data, found)
            return
        start += len(piece.data)
    if start != len(raw):
        yield Difference(ARCHIVE, "end", f"nothing after byte {start}", f"{len(raw) - start} bytes more")


def shown(name: str) -> str:
    """Return a name from an archive so that it is safe to print."""
    return name if is_safe_name(name) else brief(name)


def _first_difference(label: str, start: int, expected: bytes, found: bytes) -> Difference:
    at = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), len(found))
    got = brief(found[at : at + 8]) if at < len(found) else "the end of the archive"
    return Difference(ARCHIVE, f"byte {start + at}, {label}", brief(expected[at : at + 8]), got)
