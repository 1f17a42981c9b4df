"""The compiled wrapper of an Android package, in a Java package of its own. Rule: bytes in, bytes out, no Java needed.

The classes are compiled once (`make android-classes`) and kept in the project. Each model gets them under its own
name, as shading plug-ins do it: every name of a class file is text in its constant pool (JVM Specification 4.4), so
that text is rewritten, and nothing else.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

TEMPLATE = "edgeproof.template"
"""The Java package that the sources are written in."""
JAVA_KEYWORDS = (
    "abstract assert boolean break byte case catch char class const continue default do double else enum extends false "
    "final finally float for goto if implements import instanceof int interface long native new null package private "
    "protected public return short static strictfp super switch synchronized this throw throws transient true try void "
    "volatile while"
)
_MAGIC = b"\xca\xfe\xba\xbe"
_UTF8 = 1
_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
"""Bytes of a constant after its tag (JVM Specification, table 4.4-A)."""
_TWO_PLACES = (5, 6)
"""Tags of long and double, which take two places of the pool (4.4.5)."""


@dataclass(frozen=True)
class Relocation:
    """Where the template's classes go, and what is written into them."""

    package: str
    """The Java package that they get."""
    pinned: Mapping[str, str]
    """Texts by the placeholder that stands for them in the sources."""

    def rewrite_class(self, content: bytes) -> bytes:
        """Return a class file with its names and placeholders rewritten."""
        assert content.startswith(_MAGIC), content[:4]
        (count,) = struct.unpack_from(">H", content, 8)
        pieces = [content[:10]]
        at, place = 10, 1
        while place < count:
            tag = content[at]
            if tag == _UTF8:
                (length,) = struct.unpack_from(">H", content, at + 1)
                text = self._rewrite_text(content[at + 3 : at + 3 + length])
                pieces.append(struct.pack(">BH", _UTF8, len(text)) + text)
                at += 3 + length
            else:
                pieces.append(content[at : at + 1 + _SIZES[tag]])
                at += 1 + _SIZES[tag]
            place += 2 if tag in _TWO_PLACES else 1
        return b"".join((*pieces, content[at:]))

    def rewrite_source(self, text: str) -> str:
        """Return a source file with its names and placeholders rewritten: it compiles to the rewritten class."""
        for placeholder, value in self.pinned.items():
            text = text.replace(f'"{placeholder}"', f'"{value}"')
        return text.replace(TEMPLATE, self.package)

    def classes(self) -> dict[str, bytes]:
        """Return the wrapper's class files by path in a jar."""
        return {
            f"{_folder(self.package)}/{file.name}": self.rewrite_class(file.read_bytes())
            for file in _sorted_files(_template().joinpath("classes", _folder(TEMPLATE)), ".class")
        }

    def sources(self) -> dict[str, bytes]:
        """Return the wrapper's sources by path in a jar."""
        return {
            f"{_folder(self.package)}/{file.name}": self.rewrite_source(file.read_text(encoding="utf-8")).encode()
            for file in _sorted_files(_template().joinpath("java"), ".java")
        }

    def _rewrite_text(self, text: bytes) -> bytes:
        if (value := self.pinned.get(text.decode("ascii", errors="replace"))) is not None:
            return value.encode("ascii")
        return text.replace(f"{_folder(TEMPLATE)}/".encode(), f"{_folder(self.package)}/".encode())


def java_package(group: str, artifact: str) -> str:
    """Return the Java package of a Maven artifact; what Java, or Android for a namespace, does not take is replaced."""
    return ".".join(map(_java_word, f"{group}.{artifact}".split(".")))


def _java_word(word: str) -> str:
    word = re.sub(r"[^A-Za-z0-9_]", "_", word)
    if not word[0].isalpha():
        word = f"m{word}"
    return f"{word}_" if word in JAVA_KEYWORDS.split() else word


def _folder(package: str) -> str:
    return package.replace(".", "/")


def _template() -> Traversable:
    return files("pipeline.release.platforms").joinpath("android")


def _sorted_files(folder: Traversable, suffix: str) -> list[Traversable]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(suffix)), key=lambda file: file.name)
