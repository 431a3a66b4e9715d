"""Labelled images and their division by class; the cache; Omniglot."""

import importlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.datasets import LabelledImages, data_root, omniglot
from fewstep.datasets.cache import cache_folder, cached
from fewstep.datasets.sorting import sorted_by_class

OMNIGLOT = importlib.import_module("fewstep.datasets.omniglot")


pytestmark = pytest.mark.usefixtures("own_cache")


def numbered(*counts: int) -> LabelledImages:
    """Every image is filled with 10 × class + its number in the class."""
    images = torch.cat([10 * label + torch.arange(count) for label, count in enumerate(counts)])
    starts = torch.tensor([0, *counts]).cumsum(0)
    names = [f"class{label}" for label in range(len(counts))]
    return LabelledImages(images.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2), starts, names)


def test_labels_and_counts():
    images = numbered(2, 1, 3)
    assert (len(images), images.counts.tolist(), images.labels.tolist()) == (6, [2, 1, 3], [0, 0, 1, 2, 2, 2])


@pytest.mark.parametrize(
    ("starts", "says"), [([0, 2], "need 3 starts"), ([0, 2, 5], "to 5"), ([0, 4, 4], "'b' has no")]
)
def test_starts_must_divide_the_examples(starts, says):
    with pytest.raises(ValueError, match=says):
        LabelledImages(torch.zeros(4, 1), torch.tensor(starts), ["a", "b"])


def test_select_by_name_and_position():
    some = numbered(2, 1, 3).select(["class2", 0])
    assert some.classes == ["class2", "class0"]
    assert some.images[:, 0, 0, 0].tolist() == [20, 21, 22, 0, 1]
    assert some.counts.tolist() == [3, 2]


@pytest.mark.parametrize("classes", [[], [0, "class0"], ["other"], [3], [-1]])
def test_select_refuses_what_is_not_there(classes):
    with pytest.raises(ValueError, match="select: name|is not one of the 3 classes"):
        numbered(2, 1, 3).select(classes)


def test_split_divides_the_classes_at_random():
    images = numbered(*[2] * 20)
    first, again, other = (images.split([12, 3, 5], torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert [len(part.classes) for part in first] == [12, 3, 5]
    assert sorted(name for part in first for name in part.classes) == sorted(images.classes)
    assert [part.classes for part in first] == [part.classes for part in again]
    assert [part.classes for part in first] != [part.classes for part in other]
    for part in first:
        assert part.images[::2, 0, 0, 0].tolist() == [10 * int(name[5:]) for name in part.classes]
    for sizes in ([10, 9], [20, 1], [20, 0]):
        with pytest.raises(ValueError, match="add up to the 20 classes"):
            images.split(sizes)


class Builder:
    """Counts how often it is asked to build, and may be interrupted after its first class."""

    def __init__(self) -> None:
        self.builds, self.interrupted = 0, False

    def __call__(self):
        self.builds += 1
        for label in range(3):
            if self.interrupted and label == 1:
                raise KeyboardInterrupt
            yield f"class{label}", np.full((label + 1, 2, 4, 3), 50 * label, np.uint8)


def test_cache_is_built_once_and_maps_what_was_built(tmp_path: Path):
    build = Builder()
    for _ in range(3):
        images = cached("toy", [], build)
        assert images.images.shape == (6, 3, 2, 4)
        assert images.classes == ["class0", "class1", "class2"]
        assert images.images[:, 2, 1, 3].tolist() == [0, 50, 50, 100, 100, 100]
        images.images.zero_()  # stays in this process
    assert build.builds == 1


def test_cache_depends_on_name_options_and_sources(tmp_path: Path):
    build, source = Builder(), tmp_path / "source"
    source.write_text("a")
    for calls in (1, 1):
        cached("toy", [source], build, size=1)
        assert build.builds == calls
    cached("toy", [source], build, size=2)
    cached("other", [source], build, size=1)
    source.write_text("longer")
    cached("toy", [source], build, size=1)
    assert build.builds == 4


def test_interrupted_cache_is_rebuilt():
    build = Builder()
    build.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        cached("toy", [], build)
    assert list(cache_folder().iterdir()) == []
    build.interrupted = False
    assert len(cached("toy", [], build)) == 6


def test_processes_that_build_the_same_cache_do_not_disturb_each_other():
    built = []

    def build():
        for label in range(3):
            if label == 1:  # another process is faster
                built.append(len(cached("toy", [], Builder())))
            yield f"class{label}", np.full((label + 1, 2, 4, 3), 50 * label, np.uint8)

    images = cached("toy", [], build)
    assert [len(images), *built] == [6, 6]
    assert images.images[:, 2, 1, 3].tolist() == [0, 50, 50, 100, 100, 100]
    assert len(list(cache_folder().iterdir())) == 1


def test_a_cache_that_appears_in_the_moment_of_renaming_is_kept(monkeypatch: pytest.MonkeyPatch):
    rename = Path.rename

    def rename_late(path: Path, target: Path):
        monkeypatch.setattr(Path, "rename", rename)
        assert len(cached("toy", [], Builder())) == 6
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    assert len(cached("toy", [], Builder())) == 6
    assert len(list(cache_folder().iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "no images", "no index", "half an index"])
def test_damaged_cache_is_rebuilt(damage: str):
    build = Builder()
    cached("toy", [], build)
    (folder,) = cache_folder().iterdir()
    images, index = folder / "images.bin", folder / "index.json"
    match damage:
        case "cut":
            images.write_bytes(images.read_bytes()[:-1])
        case "no images":
            images.unlink()
        case "no index":
            index.unlink()
        case "half an index":
            index.write_text(index.read_text()[:20])
    assert cached("toy", [], build).images[-1, 0, 0, 0] == 100
    assert build.builds == 2


def test_cache_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=r"file/cache cannot be written.*FEWSTEP_CACHE"):
        cached("toy", [], Builder())


def test_images_of_one_data_set_have_one_shape():
    shapes = [(1, 2, 2, 1), (1, 2, 3, 1)]
    with pytest.raises(ValueError, match=r"'b' has \(2, 3, 1\), earlier ones \(2, 2, 1\)"):
        cached("toy", [], lambda: zip("ab", map(np.zeros, shapes), strict=True))
    with pytest.raises(ValueError, match="one shape"):
        list(sorted_by_class((0, i, np.zeros(shape[1:], np.uint8)) for i, shape in enumerate(shapes)))


def test_sorting_keeps_what_belongs_together():
    order = torch.randperm(60).tolist()
    examples = [(i % 7, i, np.full((1, 2, 1), i, np.uint8)) for i in order]
    found = {label: images[:, 0, 1, 0].tolist() for label, images in sorted_by_class(examples)}
    assert found == {label: list(range(label, 60, 7)) for label in range(7)}


def drawing(size: int = 105) -> bytes:
    """A black square in the left upper quarter on white."""
    ink = Image.new("1", (size, size), 1)
    ink.paste(0, (0, 0, size // 2, size // 2))
    file = io.BytesIO()
    ink.save(file, "png")
    return file.getvalue()


def evaluation_zip(root: Path, characters: int = 659, drawings: int = 20, content: bytes = b"") -> Path:
    with zipfile.ZipFile(root / "images_evaluation.zip", "w") as archive:
        for i in range(characters):
            for k in range(drawings):
                alphabet = "Angelic" if i < 300 else "Tibetan"
                archive.writestr(f"images_evaluation/{alphabet}/character{i:03}/{k:04}.png", content or drawing())
    return root / "images_evaluation.zip"


def test_omniglot_is_scaled_and_inverted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(OMNIGLOT._PARTS, "evaluation", 3)
    archive = evaluation_zip(tmp_path, 3)
    zipped = omniglot(tmp_path, "evaluation")
    assert zipped.images.shape == (60, 1, 28, 28)
    assert zipped.images[0, 0, 3, 3] == 255
    assert zipped.images[0, 0, 3, 20] == zipped.images[0, 0, 20, 3] == 0
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "omniglot")
    archive.unlink()
    extracted = omniglot(tmp_path, "evaluation")
    assert extracted.classes == zipped.classes == [f"Angelic/character00{i}" for i in range(3)]
    assert torch.equal(extracted.images, zipped.images)
    assert omniglot(tmp_path, "evaluation", size=20).images.shape == (60, 1, 20, 20)


def test_omniglot_names_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(OMNIGLOT._PARTS, "evaluation", 3)
    with pytest.raises(ValueError, match="split must be one of"):
        omniglot(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match=r"images_evaluation\.zip.*fewstep data download omniglot"):
        omniglot(tmp_path, "evaluation")
    archive = evaluation_zip(tmp_path, 2)
    with pytest.raises(ValueError, match=r"images_evaluation\.zip must hold 3 characters; it holds 2"):
        omniglot(tmp_path, "evaluation")
    evaluation_zip(tmp_path, 3, 19)
    with pytest.raises(ValueError, match=r"Angelic/character000 must have 20 images; it has 19"):
        omniglot(tmp_path, "evaluation")
    evaluation_zip(tmp_path, 3, 20, drawing(28))
    with pytest.raises(ValueError, match=r"character000/0000\.png must be 105×105; it is 28×28"):
        omniglot(tmp_path, "evaluation")
    evaluation_zip(tmp_path, 3, 20, drawing()[:60])
    with pytest.raises(ValueError, match=r"character000/0000\.png cannot be read as an image"):
        omniglot(tmp_path, "evaluation")
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"images_evaluation\.zip is damaged"):
        omniglot(tmp_path, "evaluation")


@pytest.mark.skipif(not (data_root() / "omniglot").is_dir(), reason="needs Omniglot in FEWSTEP_DATA/omniglot")
def test_omniglot_split_is_the_usual_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(OMNIGLOT, "_decode", lambda content, name, size: np.zeros((1, 1, 1), np.uint8))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda archive, name: b"")
    table = json.loads((data_root() / "omniglot" / "split_1028_172_423.json").read_text())
    for split, name, count in (("train", "train", 1028), ("validation", "val", 172), ("test", "test", 423)):
        wanted = {
            f"{alphabet}/{character}"
            for part in table[name].values()
            for alphabet, characters in part.items()
            for character in characters
        }
        found = omniglot(data_root(), split)
        assert set(found.classes) == wanted
        assert len(found.classes) == count
        assert found.counts.unique().tolist() == [20]
