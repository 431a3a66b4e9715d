"""miniImageNet from folders, archives and pickles; pickles that run nothing."""

import csv
import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.datasets import data_root, mini_imagenet
from fewstep.datasets.archives import read_files
from fewstep.datasets.pickles import read_pickle

pytestmark = pytest.mark.usefixtures("own_cache")


def encoded(colour: tuple[int, int, int], size: tuple[int, int] = (84, 84), kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


TABLES = ("train", "val", "test")
MINI = {f"{label}{i}.jpg": encoded((100 * label, i, 0)) for i in range(3) for label in (1, 0)}


def mini_table(root: Path, names=MINI) -> None:
    root.mkdir(exist_ok=True)
    with open(root / "val.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "label"])
        rows.writerows([name, f"n{name[0]}"] for name in names)


def mini_images(root: Path, kind: str, files: dict[str, bytes] = MINI) -> Path:
    """The images as a folder or an archive; in an archive they come in reverse order, beside another file."""
    root.mkdir(exist_ok=True)
    target = root / ("images" if kind == "folder" else f"images.{kind}")
    names = [*reversed(files), "other.jpg"]
    if kind == "folder":
        target.mkdir()
        for name in files:
            (target / name).write_bytes(files[name])
    elif kind == "zip":
        with zipfile.ZipFile(target, "w") as archive:
            for name in names:
                archive.writestr(f"images/{name}", files.get(name, b""))
    else:
        compression = kind.removeprefix("tar").removeprefix(".")
        with tarfile.open(target, f"w:{compression}") as archive:
            for name in names:
                member = tarfile.TarInfo(f"images/{name}")
                member.size = len(files.get(name, b""))
                archive.addfile(member, io.BytesIO(files.get(name, b"")))
    return target


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz", "tar.xz"])
@pytest.mark.parametrize("folder", ["mini_imagenet", "mini-imagenet", "."])
def test_mini_imagenet_from_folder_or_archive(tmp_path: Path, kind: str, folder: str):
    mini_table(tmp_path / folder)
    mini_images(tmp_path / folder, kind)
    for _ in range(2):
        found = mini_imagenet(tmp_path, "validation")
        assert found.images.shape == (6, 3, 84, 84)
        assert (found.classes, found.counts.tolist()) == (["n0", "n1"], [3, 3])
        assert found.images[:, :, 40, 40].tolist() == [[100 * label, i, 0] for label in (0, 1) for i in range(3)]


def test_mini_imagenet_of_another_size_is_scaled(tmp_path: Path):
    mini_table(tmp_path)
    mini_images(tmp_path, "folder", {**MINI, "01.jpg": encoded((0, 200, 0), (500, 375), "jpeg")})
    found = mini_imagenet(tmp_path, "validation")
    assert found.images.shape == (6, 3, 84, 84)
    assert abs(int(found.images[1, 1, 80, 3]) - 200) < 3


def test_mini_imagenet_names_what_is_wrong(tmp_path: Path):
    with pytest.raises(ValueError, match=r"one of \['train', 'validation', 'test'\]; got 'val'"):
        mini_imagenet(tmp_path, "val")
    mini_images(tmp_path, "folder")
    with pytest.raises(FileNotFoundError, match=r"val\.csv and the images .*mini-imagenet-cache-val\.pkl"):
        mini_imagenet(tmp_path, "validation")
    (tmp_path / "val.csv").write_text("file,class\na.jpg,n1\n")
    with pytest.raises(ValueError, match=r"val\.csv must have the columns filename and label.*'file', 'class'"):
        mini_imagenet(tmp_path, "validation")
    mini_table(tmp_path, [*MINI, "17.jpg", "18.jpg"])
    with pytest.raises(FileNotFoundError, match=r"images lacks 2 of 8 files, such as 17\.jpg"):
        mini_imagenet(tmp_path, "validation")
    mini_table(tmp_path)
    (tmp_path / "images" / "11.jpg").write_bytes(MINI["11.jpg"][:60])
    with pytest.raises(ValueError, match=r"images: 11\.jpg cannot be read as an image"):
        mini_imagenet(tmp_path, "validation")
    (tmp_path / "images" / "11.jpg").write_bytes(MINI["11.jpg"])
    assert len(mini_imagenet(tmp_path, "validation")) == 6


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
@pytest.mark.parametrize("keep", [0.3, 0.6])
def test_archive_cut_short_is_named(tmp_path: Path, kind: str, keep: float):
    mini_table(tmp_path)
    noise = {name: np.random.default_rng(i).bytes(2000) for i, name in enumerate(MINI)}
    archive = mini_images(tmp_path, kind, noise)
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    with pytest.raises((ValueError, FileNotFoundError), match=rf"images\.{kind} (is damaged or truncated|lacks)"):
        list(read_files(archive, noise))


def test_archive_is_read_no_further_than_needed(tmp_path: Path):
    noise = {name: np.random.default_rng(i).bytes(2**20) for i, name in enumerate(MINI)}
    archive = mini_images(tmp_path, "tar.gz", noise)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    name = list(noise)[-1]
    assert dict(read_files(archive, [name])) == {name: noise[name]}


@pytest.mark.skipif(not (data_root() / "mini_imagenet").is_dir(), reason="needs FEWSTEP_DATA/mini_imagenet")
def test_real_mini_imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The tables have 64, 16 and 20 classes without overlap; the beginning of the archive is decoded."""
    root = data_root() / "mini_imagenet"
    tables = {name: list(csv.DictReader((root / f"{name}.csv").read_text().splitlines())) for name in TABLES}
    classes = {name: {row["label"] for row in rows} for name, rows in tables.items()}
    assert {name: len(labels) for name, labels in classes.items()} == {"train": 64, "val": 16, "test": 20}
    assert len(set.union(*classes.values())) == 100
    mini_table(tmp_path)
    with open(tmp_path / "train.csv", "w", newline="") as file:
        rows = csv.DictWriter(file, ["filename", "label"])
        rows.writeheader()
        rows.writerows(tables["train"][:40])
    (tmp_path / "images.tar.xz").symlink_to(root / "images.tar.xz")
    found = mini_imagenet(tmp_path, "train")
    assert found.images.shape == (40, 3, 84, 84)
    assert found.images.float().std() > 30


def test_pickle_cache_of_mini_imagenet(tmp_path: Path):
    images = np.random.default_rng(0).integers(256, size=(5, 84, 84, 3), dtype=np.uint8)
    file = tmp_path / "mini-imagenet-cache-train.pkl"
    file.write_bytes(pickle.dumps({"image_data": images, "class_dict": {"n1": [0, 3], "n0": [1, 2, 4]}}, protocol=2))
    found = mini_imagenet(tmp_path, "train")
    assert (found.classes, found.counts.tolist()) == (["n1", "n0"], [2, 3])
    assert np.array_equal(found.images.permute(0, 2, 3, 1).numpy(), images[[0, 3, 1, 2, 4]])
    for content, says in (
        ({"image_data": images}, "must hold image_data and class_dict"),
        ({"image_data": images[:, :80], "class_dict": {}}, r"uint8 \[images, 84, 84, 3\]"),
        ({"image_data": images, "class_dict": {"n1": [5]}}, "class 'n1' has indices outside the 5 images"),
    ):
        file.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=says):
            mini_imagenet(tmp_path, "train")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol(protocol: int):
    content = {
        "bytes": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "one": np.float32(0.5),
        "ordered": OrderedDict(a=[1, (2, None)]),
        b"key": b"\xff\x00",
    }
    found = read_pickle(pickle.dumps(content, protocol), "made here")
    for name in ("bytes", "columns", "big"):
        assert np.array_equal(found[name], content[name])
        assert found[name].dtype == content[name].dtype
    assert (found["one"], found["ordered"], found["key"]) == (0.5, {"a": [1, (2, None)]}, b"\xff\x00")


PYTHON_2 = (
    b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x03\x86"
    b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x00\x80\xff"
    b"\x01\x02\x03tbU\x06labels](U\x05whaleK\x07eu."
)


def test_pickle_of_python_2():
    found = read_pickle(PYTHON_2, "old")
    assert found["data"].tolist() == [[0, 128, 255], [1, 2, 3]]
    assert found["labels"] == ["whale", 7]


class Malicious:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize("call", [os.mkdir, eval, np.load, getattr])
def test_pickles_run_nothing(tmp_path: Path, call, protocol: int):
    made = tmp_path / "made"
    arguments = {os.mkdir: [str(made)], eval: [f"__import__('os').mkdir({str(made)!r})"]}.get(call, ["a", "b"])
    content = pickle.dumps({"image_data": Malicious(call, *arguments), "class_dict": {}}, protocol)
    (tmp_path / "mini-imagenet-cache-test.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=rf"cache-test\.pkl cannot be read.*it calls \S*{call.__name__}.*can run code"):
        mini_imagenet(tmp_path, "test")
    assert not made.exists()


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(np.array([{}, "a"])), pickle.dumps(np.zeros(2, "M8[s]")), pickle.dumps({1, 2}), b"", b"\x80"],
)
def test_pickles_of_other_things_are_refused(content: bytes):
    with pytest.raises(ValueError, match="here cannot be read as plain data"):
        read_pickle(content, "here")


@pytest.mark.parametrize("keep", range(0, len(PYTHON_2) - 1, 7))
def test_pickles_cut_short_are_refused(keep: int):
    with pytest.raises(ValueError, match="here cannot be read as plain data"):
        read_pickle(PYTHON_2[:keep], "here")
