"""The Swift package of a release: sources that parse, golden answers in it, and words for what no Mac ran."""

import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_swift
from android_samples import Layout, sample_payload
from pydantic import ValidationError
from swift_lab import record, set_up, swift_test
from tree_sitter import Language, Node, Parser

from pipeline.release.payload import Package, Payload
from pipeline.release.platforms.ios import IOS
from pipeline.release.platforms.templates import swift_literal
from pipeline.release.self_test import read_self_test
from pipeline.release.verify import verify_bytes

SOURCES = "EdgeproofDigits/Sources/EdgeproofDigits/"


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return sample_payload(tmp_path_factory.mktemp("payload"))


@pytest.fixture(scope="module")
def package(payload: Payload) -> Package:
    return IOS(ort=False).package(payload, None)


def broken_nodes(source: bytes) -> list[str]:
    def walk(node: Node) -> Iterator[Node]:
        yield node
        for child in node.children:
            yield from walk(child)

    root = Parser(Language(tree_sitter_swift.language())).parse(source).root_node
    return [f"{each.start_point}: {each.type}" for each in walk(root) if each.is_error or each.is_missing]


def test_every_source_parses_as_swift(package: Package) -> None:
    sources = {path: content for path, content in package.files.items() if path.endswith(".swift")}
    assert len(sources) == 8
    assert [f"{path}{node}" for path, content in sources.items() for node in broken_nodes(content)] == []


@pytest.mark.parametrize("bracket", [b"{", b"}", b"(", b")", b"]"])
def test_a_source_without_one_bracket_would_be_seen(bracket: bytes, package: Package) -> None:
    source = package.files[f"{SOURCES}Classifier.swift"]
    at = source.rindex(bracket)
    assert broken_nodes(source[:at] + source[at + 1 :])


def test_folder_and_archive_hold_the_same_files_and_the_golden_answers(package: Package, payload: Payload) -> None:
    archive = package.files[package.archive]
    assert verify_bytes(archive, None).differences == ()
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        packed = {f"EdgeproofDigits/{name}": opened.read(name) for name in opened.namelist()}
    assert {**packed, package.archive: archive} == dict(package.files)
    for name in ("golden.json", "golden/images.bin", "golden/logits.bin", "model.onnx", "labels.txt"):
        assert package.files[f"{SOURCES}Release/{name}"] == payload.files[name]


def test_readme_says_what_was_not_executed(package: Package) -> None:
    readme = package.files["EdgeproofDigits/README.md"].decode()
    assert all(f"- {limit[0].upper()}{limit[1:]}.\n" in readme for limit in package.limits)
    assert any(limit.startswith("not executed on iOS or macOS: ") for limit in package.limits)
    assert any(limit.startswith("not measured on iOS or macOS: the verdict (pass) is of ") for limit in package.limits)


def test_recipe_names_module_runtime_and_oldest_systems(payload: Payload) -> None:
    platform = IOS(module="AcmeDigits", onnxruntime="1.20.0", minimum_ios="16.4", minimum_macos="13.3", ort=False)
    package = platform.package(payload, None)
    manifest = package.files["AcmeDigits/Package.swift"].decode()
    assert package.archive == "AcmeDigits-0.1.0.zip"
    assert 'platforms: [.iOS("16.4"), .macOS("13.3")]' in manifest
    assert (
        '.package(url: "https://github.com/microsoft/onnxruntime-swift-package-manager", exact: "1.20.0")' in manifest
    )
    assert "import AcmeDigits" in package.files["AcmeDigits/Tests/AcmeDigitsTests/AcmeDigitsTests.swift"].decode()


@pytest.mark.parametrize("name", ["digits", "My Model", "Größe", "Foundation", "Classifier", "Self"])
def test_modules_that_swift_or_the_package_would_refuse_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f'expected a Swift module of its own: .*; got "{name}"'):
        IOS(module=name)


def test_versions_that_are_not_semantic_are_refused() -> None:
    taken = ("1.2.3", "1.2.3-rc.1", "1.2.3-0a+build.7")
    assert [IOS().refusal("digits", version) for version in taken] == [None, None, None]
    for version in ("01.2.3", "1.2.3-.", "1.2.3-01", "1.2.3-a+b+c"):
        assert f'as SwiftPM takes, like 1.2.3 or 1.2.3-rc.1; got "{version}"' in str(IOS().refusal("digits", version))


@pytest.mark.parametrize("text", ['"', "\\", "\\(exit(1))", "two\nlines", "größer", "\u202etxt.exe", "😀", "\x00"])
def test_any_text_is_one_literal_without_interpolation(text: str) -> None:
    source = f"let text = {swift_literal(text)}\n".encode()
    assert broken_nodes(source) == []
    root = Parser(Language(tree_sitter_swift.language())).parse(source).root_node
    (literal,) = [node for node in root.children[0].children if node.type == "line_string_literal"]
    assert "interpolat" not in str(literal)
    assert literal.end_byte == len(source) - 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("swift") is None, reason="needs Swift 5.9 or newer on the PATH, on any system")
@pytest.mark.parametrize(("layout", "batch"), [("float32_nchw", None), ("uint8_nhwc", 3)])
def test_swift_compiles_it_and_feeds_the_model_bit_for_bit(layout: Layout, batch: int | None, tmp_path: Path) -> None:
    payload = sample_payload(tmp_path / "payload", layout, batch)
    folder = set_up(IOS(ort=False).package(payload, None), "EdgeproofDigits", tmp_path / "lab")
    record(payload, tmp_path / "recorded")
    done = swift_test(folder, tmp_path / "recorded", payload.golden.samples, tmp_path / "self_test.json")
    assert done.returncode == 0, done.stdout
    assert "Executed 5 tests, with 0 failures" in done.stdout
    result = read_self_test(tmp_path / "self_test.json")
    assert (result.platform, result.model_sha256) == ("ios", payload.manifest.files["model.onnx"].sha256)
    assert [block.size for block in result.blocks_ns] == [5]
    assert result.golden.labels_equal
    assert result.golden.largest_difference == 0
