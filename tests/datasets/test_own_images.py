"""The user's own images: folders, and data sets of other libraries."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.datasets import from_dataset, from_folder

pytestmark = pytest.mark.usefixtures("own_cache")


def encoded(colour: tuple[int, int, int], size: tuple[int, int] = (84, 84), kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def picture_folder(root: Path) -> Path:
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (root / name / "more").mkdir(parents=True)
        for i, kind in enumerate(("png", "bmp", "gif", "jpeg")):
            (root / name / f"{i}.{kind}").write_bytes(encoded(colour, (30 + i, 20), kind))
        (root / name / "notes.txt").write_text("no image")
        (root / name / ".hidden.png").write_text("no image")
    (root / "blue" / "more" / "x.PNG").write_bytes(encoded((0, 0, 100)))
    (root / "readme.md").write_text("no class")
    return root


def test_folder_with_one_class_in_each_subfolder(tmp_path: Path):
    root = picture_folder(tmp_path / "pictures")
    found = from_folder(root, 16)
    assert (found.classes, found.counts.tolist()) == (["blue", "red"], [5, 4])
    assert found.images.shape == (9, 3, 16, 16)
    assert (
        found.images[:, :, 8, 8]
        .float()
        .sub(torch.tensor([[0, 0, 255]] * 4 + [[0, 0, 100]] + [[255, 0, 0]] * 4))
        .abs()
        .max()
        < 4
    )
    grey = from_folder(root, 12, channels=1)
    assert grey.images.shape == (9, 1, 12, 12)
    (root / "red" / "0.png").unlink()
    assert from_folder(root, 16).counts.tolist() == [5, 3]
    (root / "red" / "1.bmp").write_bytes(encoded((255, 255, 0)))
    assert from_folder(root, 16).images[5, 1, 8, 8] == 255


def test_folder_turns_photographs_upright_and_takes_16_bits(tmp_path: Path):
    (tmp_path / "a").mkdir()
    photograph = Image.new("RGB", (16, 16))
    photograph.paste((255, 255, 255), (0, 0, 16, 8))  # white above; rotated by a quarter turn it is on the right
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph.save(tmp_path / "a" / "a.png", exif=exif)
    Image.fromarray(np.full((16, 16), 0x8000, np.uint16)).save(tmp_path / "a" / "b.png")
    images = from_folder(tmp_path, 16, channels=1).images
    assert images[0, 0, 8, [1, 14]].tolist() == [0, 255]
    assert images[1].unique().tolist() == [0x80]


def test_folder_names_what_is_wrong(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        from_folder(tmp_path / "nowhere", 8)
    root = tmp_path / "pictures"
    root.mkdir()
    with pytest.raises(FileNotFoundError, match="has no sub-folders"):
        from_folder(root, 8)
    picture_folder(root)
    (root / "green").mkdir()
    with pytest.raises(ValueError, match="green holds no images"):
        from_folder(root, 8)
    (root / "green" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"green/1\.png cannot be read as an image"):
        from_folder(root, 8)
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        from_folder(root, 8, channels=4)


class Torchvision(list):
    classes = ("cat", "dog", "cow")


class Names:
    names = ("cat", "dog", "cow")


class HuggingFace(list):
    features = {"fine": Names(), "img": object()}  # noqa: RUF012


def test_data_sets_like_torchvisions():
    pictures = [Image.new("RGB", (10, 6), (i, 0, 0)) for i in range(4)]
    found = from_dataset(Torchvision(zip(pictures, [2, 0, 2, 1], strict=True)), size=8)
    assert found.images.shape == (4, 3, 8, 8)
    assert (found.classes, found.counts.tolist()) == (["cat", "dog", "cow"], [1, 1, 2])
    assert found.images[:, 0, 4, 4].tolist() == [1, 3, 0, 2]


def test_data_sets_like_hugging_faces():
    rows = [{"img": Image.new("L", (4, 4), i), "fine": label, "coarse": 0} for i, label in enumerate([2, 0, 2])]
    found = from_dataset(HuggingFace(rows), image="img", label="fine", channels=1)
    assert (found.classes, found.counts.tolist()) == (["cat", "cow"], [1, 2])
    assert found.images[:, 0, 0, 0].tolist() == [1, 0, 2]
    with pytest.raises(TypeError, match=r"'image' and 'label'; got \['img', 'fine', 'coarse'\]"):
        from_dataset(HuggingFace(rows))


@pytest.mark.parametrize(
    "picture",
    [
        np.full((4, 5, 3), 51, np.uint8),
        np.full((4, 5, 3), 0.2),
        np.full((4, 5), 0.2, np.float32),
        np.full((4, 5, 1), 51, np.uint8),
        torch.full((3, 4, 5), 51, dtype=torch.uint8),
        torch.full((3, 4, 5), 0.2),
        torch.full((1, 4, 5), 0.2),
        torch.full((4, 5), 0.2, dtype=torch.float64),
        Image.new("RGBA", (5, 4), (51, 51, 51, 255)),
    ],
)
def test_images_as_arrays_and_tensors(picture):
    found = from_dataset([(picture, np.int64(3)), (picture, torch.tensor(3))])
    assert found.images.shape == (2, 3, 4, 5)
    assert found.images.unique().tolist() == [51]
    assert found.classes == ["3"]


@pytest.mark.parametrize(
    ("example", "says"),
    [
        ((np.zeros((4, 4)), 0.5), "label of example 0 must be an integer or a string; got 0.5"),
        ((np.zeros((4, 4)), torch.tensor([1, 2])), "label of example 0"),
        ((np.full((4, 4), -1.0), 0), r"in \[0, 1\]; example 0 has values in \[-1, -1\]. Do not normalise"),
        ((np.full((4, 4), np.nan), 0), r"in \[0, 1\]"),
        ((np.zeros((4, 4), np.int64), 0), "example 0 is int64"),
        (
            (np.zeros((3, 5, 5)), 0),
            r"last in an array and first in a tensor; got \(height, width, channels\) = \(3, 5, 5\)",
        ),
        (("cat.png", 0), "an array or a tensor; got str"),
        (7, r"\(image, label\) pair.*got int"),
    ],
)
def test_other_examples_are_refused(example, says):
    with pytest.raises(TypeError, match=says):
        from_dataset([example])


def test_data_sets_need_images_of_one_size():
    with pytest.raises(ValueError, match="is empty"):
        from_dataset([])
    mixed = [(np.zeros((4, 4)), 0), (np.zeros((5, 4)), 0)]
    with pytest.raises(ValueError, match="one shape"):
        from_dataset(mixed)
    assert from_dataset(mixed, size=6).images.shape == (2, 3, 6, 6)
