"""The kinds of data: what they read, how they cut it, and what they say of folders that are not what they should be."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from pipeline.errors import DataError, RecipeError
from pipeline.tasks.cifar10 import Cifar10
from pipeline.tasks.classification import ClassificationTask, Normalization
from pipeline.tasks.dataset import Cut, Dataset, Split, stratified_cut
from pipeline.tasks.digits import Digits
from pipeline.tasks.image_folder import ImageFolder

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPROOF_DATA", raising=False)


def rows(split: Split) -> set[bytes]:
    return {image.tobytes() for image in split.images}


def test_the_held_out_fifth_of_digits_is_scikit_learns() -> None:
    bunch = load_digits()
    _, images, _, labels = train_test_split(
        bunch.images, bunch.target, test_size=0.2, stratify=bunch.target, random_state=0
    )
    test = Digits().load().test
    expected = {(np.rint(i * 255 / 16).astype(np.uint8).tobytes(), int(c)) for i, c in zip(images, labels, strict=True)}
    assert {(i.tobytes(), int(c)) for i, c in zip(test.images, test.labels, strict=True)} == expected
    assert len(test) == 360


def test_the_splits_of_digits_are_disjoint_and_whole() -> None:
    data = Digits().load()
    parts = [rows(data.train), rows(data.validation), rows(data.test)]
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    everything = load_digits().images
    duplicates = 1797 - len({image.tobytes() for image in everything})
    assert 1797 - len(set.union(*parts)) == duplicates == 0


def write_batches(folder: Path, per_file: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Write CIFAR-10's binary format: label, then 1024 red, green and blue bytes; return the test images and labels."""
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        labels = np.arange(per_file, dtype=np.uint8) % 10
        images = RNG.integers(0, 256, (per_file, 3, 32, 32), dtype=np.uint8)
        records = [bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True)]
        (folder / name).write_bytes(b"".join(records))
    return images, labels


@pytest.mark.parametrize("inner", ["", "cifar-10-batches-bin"])
def test_cifar10_reads_the_standard_binary_batches(tmp_path: Path, inner: str) -> None:
    images, labels = write_batches(tmp_path / "c" / inner)
    data = Cifar10(folder=str(tmp_path / "c"), validation=Cut(share=0.2)).load()
    np.testing.assert_array_equal(data.test.images.transpose(0, 3, 1, 2), images)
    np.testing.assert_array_equal(data.test.labels, labels)
    assert (len(data.train), len(data.validation)) == (80, 20)
    assert np.bincount(data.validation.labels).tolist() == [2] * 10


def test_cifar10_uses_so_many_training_images(tmp_path: Path) -> None:
    write_batches(tmp_path / "c", per_file=98)
    data = Cifar10(folder=str(tmp_path / "c"), validation=Cut(share=0.1), train_images=70).load()
    assert len(data.train) == 70
    assert np.bincount(data.train.labels).tolist() == [7] * 10
    assert rows(data.train).isdisjoint(rows(data.validation))


def write_archive(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    files = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=95)
        files.append(buffer.getvalue())
    blob = np.frombuffer(b"".join(files), np.uint8)
    offsets = np.cumsum([0, *map(len, files)])
    np.savez_compressed(path, jpeg=blob, offsets=offsets, labels=labels.astype(np.uint8))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    labels = np.arange(30) % 10
    images = np.broadcast_to((labels * 25)[:, None, None, None], (30, 32, 32, 3)).astype(np.uint8)
    for split in ("train", "test"):
        write_archive(tmp_path / f"cifar10_{split}_jpeg.npz", images, labels)
    return tmp_path


def test_cifar10_reads_an_archive_of_jpegs(archive: Path) -> None:
    data = Cifar10(folder=str(archive), validation=Cut(share=0.34)).load()
    assert data.test.images.shape == (30, 32, 32, 3)
    flat = np.abs(data.test.images.astype(int) - (data.test.labels * 25)[:, None, None, None])
    assert flat.max() <= 2  # JPEG keeps an even colour to rounding


@pytest.mark.parametrize("damage", ["cut short", "no archive", "empty", "flipped", "too few offsets"])
def test_a_damaged_archive_is_named(archive: Path, damage: str) -> None:
    path = archive / "cifar10_test_jpeg.npz"
    content = path.read_bytes()
    changed = {"cut short": content[:1000], "no archive": b"garbage", "empty": b"", "flipped": None}
    if damage == "too few offsets":
        np.savez(path, jpeg=np.zeros(3, np.uint8), offsets=np.zeros(2, np.int64), labels=np.zeros(3, np.uint8))
    else:
        path.write_bytes(
            changed[damage] or content[:200] + bytes(byte ^ 255 for byte in content[200:400]) + content[400:]
        )
    with pytest.raises(DataError, match=r"cifar10_test_jpeg.npz: expected jpeg, offsets and labels"):
        Cifar10(folder=str(archive), validation=Cut(share=0.34)).load()


def test_a_batch_that_is_cut_short_is_named(tmp_path: Path) -> None:
    write_batches(tmp_path / "c")
    path = tmp_path / "c" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"data_batch_3.bin: expected records of 3073 bytes; got 61455 bytes"):
        Cifar10(folder=str(tmp_path / "c")).load()


def test_an_incomplete_cifar10_folder_says_what_it_wants_and_has(tmp_path: Path) -> None:
    write_batches(tmp_path / "c")
    (tmp_path / "c" / "test_batch.bin").unlink()
    with pytest.raises(
        DataError, match=r"expected data_batch_1.bin .. data_batch_5.bin and test_batch.bin .* got data_b"
    ):
        Cifar10(folder=str(tmp_path / "c")).load()


def write_image(path: Path, value: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, value, value)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 10 images; cats are darker than dogs."""
    for index in range(10):
        write_image(tmp_path / "photos" / "cat" / f"{index}.png", 10 + index)
        write_image(tmp_path / "photos" / "dog" / f"{index}.PNG", 200 + index, mode="L")
    return tmp_path / "photos"


def test_image_folder_holds_out_a_stratified_fifth(photos: Path) -> None:
    data = ImageFolder(folder=str(photos), image_size=8, validation=Cut(share=0.25)).load()
    assert data.classes == ("cat", "dog")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 4, 4]
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert data.train.images.shape[1:] == (8, 8, 3)
    assert ((data.train.images.mean((1, 2, 3)) > 100) == (data.train.labels == 1)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_image_folder_keeps_the_users_own_test_set(photos: Path, channels: int) -> None:
    photos.rename(photos.parent / "train")
    write_image(photos / "test" / "cat" / "a.png", 77)
    write_image(photos / "test" / "dog" / "b.png", 99)
    (photos.parent / "train").rename(photos / "train")
    data = ImageFolder(folder=str(photos), image_size=8, channels=channels, validation=Cut(share=0.2)).load()
    assert data.test.images.shape == (2, 8, 8, channels)
    assert data.test.images[:, 0, 0, 0].tolist() == [77, 99]
    assert (len(data.train), len(data.validation)) == (16, 4)


def test_an_image_is_cropped_at_its_centre(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    for name in ("cat", "dog"):
        for index in range(5):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(wide).save(tmp_path / name / f"{index}.png")
    data = ImageFolder(folder=str(tmp_path), image_size=8, test=Cut(share=0.4), validation=Cut(share=0.5)).load()
    assert data.train.images.min() == 255


def test_a_broken_image_is_named(photos: Path) -> None:
    path = photos / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:48])
    with pytest.raises(DataError, match=r"cat/3.png: expected an image; got .* Remove or replace the file"):
        ImageFolder(folder=str(photos), image_size=8).load()


def test_one_class_is_not_enough(photos: Path) -> None:
    (photos / "dog").rename(photos / ".dog")
    with pytest.raises(DataError, match=r"expected at least two folders, one a class; got cat$"):
        ImageFolder(folder=str(photos), image_size=8).load()


def test_a_class_without_images_is_named(photos: Path) -> None:
    (photos / "owl").mkdir()
    with pytest.raises(DataError, match=r"in every class; none in \['owl'\]"):
        ImageFolder(folder=str(photos), image_size=8).load()


def test_train_beside_val_is_not_taken_for_two_classes(photos: Path) -> None:
    (photos / "cat").rename(photos / "train")
    (photos / "dog").rename(photos / "val")
    with pytest.raises(
        DataError, match=r"expected both train/ and test/, or folders of classes alone; got train/ and val"
    ):
        ImageFolder(folder=str(photos), image_size=8).load()


def test_other_classes_in_test_are_named(photos: Path) -> None:
    (photos / "train").mkdir()
    for name in ("cat", "dog"):
        (photos / name).rename(photos / "train" / name)
    write_image(photos / "test" / "cat" / "a.png", 1)
    write_image(photos / "test" / "owl" / "a.png", 1)
    with pytest.raises(DataError, match=r"test: expected the classes of train \(cat, dog\); got cat, owl"):
        ImageFolder(folder=str(photos), image_size=8).load()


@pytest.mark.parametrize("kind", [Cifar10, lambda folder: ImageFolder(folder=folder, image_size=8)])
def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path, kind: type[Cifar10]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: expected a folder that can be read; got: Not a directory"):
        kind(folder=str(tmp_path / "file")).load()


def test_the_environments_folder_wins_over_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_batches(tmp_path / "recipe" / "c")
    images, _ = write_batches(tmp_path / "data" / "c")
    monkeypatch.setenv("EDGEPROOF_DATA", str(tmp_path / "data"))
    table = {"folder": "c", "validation": {"share": 0.1}}
    data = Cifar10.model_validate(table, context={"folder": tmp_path / "recipe"})
    np.testing.assert_array_equal(data.load().test.images.transpose(0, 3, 1, 2), images)


def test_missing_data_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPROOF_DATA", str(tmp_path / "data"))
    data = Cifar10.model_validate({"folder": "c"}, context={"folder": tmp_path / "recipe"})
    with pytest.raises(DataError) as caught:
        data.load()
    message = str(caught.value)
    assert f"looked at {tmp_path}/data/c, {tmp_path}/recipe/c." in message
    assert "set EDGEPROOF_DATA to the folder that holds it" in message


def test_the_fingerprint_follows_content_not_place(photos: Path, tmp_path: Path) -> None:
    def fingerprint(folder: Path) -> str:
        return ImageFolder(folder=str(folder), image_size=8).fingerprint()

    before = fingerprint(photos)
    moved = photos.rename(tmp_path / "moved")
    assert fingerprint(moved) == before
    os.replace(moved / "cat" / "1.png", moved / "dog" / "0.PNG")
    assert fingerprint(moved) != before


def test_a_class_too_small_to_cut_is_an_error_in_words() -> None:
    split = Split(np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 0, 1]))
    with pytest.raises(DataError, match=r"a stratified cut of 0.2 of 3 images: .*; take a larger share or more data"):
        stratified_cut(split, 0.2, 0)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 8, 8, 1), np.float32), np.zeros(2, np.int64), r"expected uint8\[N, H, W, C\]; got float32"),
        (np.zeros((2, 8, 8, 1), np.uint8), np.zeros(3, np.int64), r"labels: expected int64\[2\]; got int64\[3\]"),
        (np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 7]), r"labels: expected 0..1, one a class name; got 0..7"),
        (np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, np.int64), "expected at least one image; got none"),
    ],
)
def test_a_users_data_set_is_checked_where_it_is_built(images: np.ndarray, labels: np.ndarray, message: str) -> None:
    split = Split(images, labels)
    with pytest.raises(DataError, match=message):
        Dataset(split, split, split, ("a", "b"))


def test_normalization_must_fit_the_channels() -> None:
    task = ClassificationTask(data=Digits(), normalization=Normalization(mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0)))
    with pytest.raises(RecipeError, match=r"task.normalization: expected 1 values of mean and std.*; got 3"):
        task.load()


@pytest.mark.slow
def test_the_shared_archive_is_cifar10(shared_data: Path) -> None:
    data = Cifar10(folder=str(shared_data / "cifar10")).load()
    assert [len(part) for part in (data.train, data.validation, data.test)] == [49_000, 1_000, 10_000]
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
