import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from benchmarks.android_lab import ANDROID, DOUBLES, compile_java
from pipeline.release.platforms.android_classes import TEMPLATE, Relocation, java_package

COMPILER = 17
"""Of the committed classes: another javac may order constants otherwise."""
RELOCATION = Relocation(
    "com.example.digits", {"@folder@": "edgeproof/com.example.digits/", "@properties_sha256@": "ab"}
)


def utf8(text: str) -> bytes:
    return struct.pack(">BH", 1, len(text)) + text.encode()


def javac_version() -> int:
    if shutil.which("javac") is None:
        pytest.skip("needs javac: apt-get install default-jdk-headless")
    printed = subprocess.run(["javac", "-version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"\d+", printed)[0])


def compiled(sources: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    for name, content in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    compile_java(sorted(folder.rglob("*.java")), folder / "out", source_path=DOUBLES)
    return {str(path.relative_to(folder / "out")): path.read_bytes() for path in (folder / "out").rglob("*.class")}


def test_names_and_placeholders_of_a_class_file_are_rewritten_and_no_other_byte() -> None:
    head, long = bytes.fromhex("cafebabe 0000 0034"), b"\x05" + bytes(range(8))
    code = b"edgeproof/template/ in the code of a method"

    def class_file(owner: str, method: str, text: str) -> bytes:
        pool = utf8(owner) + long + b"\x07\x00\x01" + utf8(method) + utf8(text) + utf8("edgeproof/templates")
        return head + struct.pack(">H", 8) + pool + code

    before = class_file("edgeproof/template/Model", "(I[Ledgeproof/template/Score;)V", "@folder@")
    after = class_file("com/example/digits/Model", "(I[Lcom/example/digits/Score;)V", "edgeproof/com.example.digits/")
    assert RELOCATION.rewrite_class(before) == after


def test_nothing_of_the_template_is_left_in_classes_and_sources() -> None:
    classes, sources = RELOCATION.classes(), RELOCATION.sources()
    assert {Path(name).stem for name in classes} == {Path(name).stem for name in sources}
    assert {str(Path(name).parent) for name in (*classes, *sources)} == {"com/example/digits"}
    for name, content in {**classes, **sources}.items():
        for left in (b"edgeproof/template", b"edgeproof.template", b'"@', b"@folder@", b"@properties_sha256@"):
            assert left not in content, name


@pytest.mark.parametrize(
    ("group", "artifact", "expected"),
    [
        ("com.example", "digits", "com.example.digits"),
        ("com.my-company", "3d.net", "com.my_company.m3d.net"),
        ("io", "switch.Native.native", "io.switch_.Native.native_"),
        ("edgeproof", "_x", "edgeproof.m_x"),
    ],
)
def test_every_artifact_gets_a_package_that_java_and_android_take(group: str, artifact: str, expected: str) -> None:
    assert java_package(group, artifact) == expected


@pytest.mark.slow
def test_committed_classes_are_what_javac_makes_of_the_sources(tmp_path: Path) -> None:
    if (version := javac_version()) != COMPILER:
        pytest.skip(f"needs javac {COMPILER}, which compiled the committed classes; got {version}")
    sources = {path.name: path.read_bytes() for path in (ANDROID / "java").glob("*.java")}
    classes = ANDROID / "classes"
    committed = {str(path.relative_to(classes)): path.read_bytes() for path in classes.rglob("*.class")}
    assert compiled(sources, tmp_path) == committed, "run `make android-classes`"
    assert all(name.startswith(TEMPLATE.replace(".", "/")) for name in committed)


@pytest.mark.slow
def test_rewritten_sources_compile_to_the_rewritten_classes(tmp_path: Path) -> None:
    if (version := javac_version()) != COMPILER:
        pytest.skip(f"needs javac {COMPILER}, which compiled the committed classes; got {version}")
    assert compiled(RELOCATION.sources(), tmp_path) == RELOCATION.classes()
