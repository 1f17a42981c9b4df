import sys
from pathlib import Path

from benchmarks.quantization_peers import Peer, Workshop, file_digest
from benchmarks.quantization_students import Prepared, Student
from pipeline.artifacts import OnnxModel
from targets.target import TensorSpec

COPIES = """
import sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print(options["--variant"])
open(options["--out"], "wb").write(open(options["--model"], "rb").read())
open("runs.txt", "a").write("run ")
"""
FAILS = "print('it begins')\nraise KeyError('conv1')\n"


def workshop(folder: Path, script: str) -> Workshop:
    for name, content in (("peer.py", script), ("request.py", ""), ("needs.txt", ""), ("images.npz", "images")):
        (folder / name).write_text(content)
    return Workshop(Path(sys.executable), folder / "images.npz", folder / "kept", folder, folder / "needs.txt")


def prepared(folder: Path) -> Prepared:
    path = folder / "float.onnx"
    path.write_text("a model")
    spec = TensorSpec("image", "float32", (1, 3, 8, 8))
    onnx = OnnxModel(path, "", 7, 20, "fp32", input=spec, output=spec)
    return Prepared(Student("net", {}, {}), onnx, folder / "float.pt")


def test_a_peer_runs_once_for_the_same_content(tmp_path: Path) -> None:
    shop, student = workshop(tmp_path, COPIES), prepared(tmp_path)
    first, second = (shop.make(Peer("Copies", "peer.py"), student) for _ in range(2))
    assert first == second
    assert first.path is not None
    assert first.path.read_text() == "a model"
    assert (tmp_path / "runs.txt").read_text() == "run "


def test_another_script_or_image_or_variant_is_another_file(tmp_path: Path) -> None:
    shop, student, peer = workshop(tmp_path, COPIES), prepared(tmp_path), Peer("Copies", "peer.py")
    keys = {shop.content_key(peer, student), shop.content_key(Peer("Copies", "peer.py", "other"), student)}
    (tmp_path / "images.npz").write_text("other images")
    keys.add(shop.content_key(peer, student))
    (tmp_path / "peer.py").write_text(FAILS)
    keys.add(shop.content_key(peer, student))
    assert len(keys) == 4


def test_a_peer_that_fails_leaves_its_last_line(tmp_path: Path) -> None:
    made = workshop(tmp_path, FAILS).make(Peer("Fails", "peer.py"), prepared(tmp_path))
    assert made.path is None
    assert made.reason == "KeyError: 'conv1'"


def test_the_digest_of_ir_counts_its_weights(tmp_path: Path) -> None:
    for name, weights in (("one", b"1"), ("two", b"2")):
        (tmp_path / f"{name}.xml").write_text("the same graph")
        (tmp_path / f"{name}.bin").write_bytes(weights)
    assert file_digest(tmp_path / "one.xml") != file_digest(tmp_path / "two.xml")
