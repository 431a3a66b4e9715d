"""miniImageNet (Vinyals et al. 2016) in the split of Ravi and Larochelle 2017: 64, 16 and 20 classes of ImageNet."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Literal

import numpy as np

from fewstep.arguments import check_choice, check_path
from fewstep.datasets.archives import read_files
from fewstep.datasets.cache import ClassImages, cached
from fewstep.datasets.decoding import decode, pixels
from fewstep.datasets.labelled_images import LabelledImages
from fewstep.datasets.pickles import read_pickle
from fewstep.datasets.sorting import Example, sorted_by_class
from fewstep.files import read_regular

Split = Literal["train", "validation", "test"]

_NAMES = {"train": "train", "validation": "val", "test": "test"}
_SIZE = 84
_MAX_TABLE = 2**26
_SOURCES = ("images", "images.tar.xz", "images.tar.gz", "images.tar", "images.zip")


def mini_imagenet(root: str | Path, split: Split) -> LabelledImages:
    """Load miniImageNet in the split of Ravi and Larochelle (2017): photographs, 600 per class in a complete copy.

    Images of other sizes are scaled to 84×84 with the Lanczos filter, as in the MAML paper's code. The first call
    decodes the split (about a minute for ``"train"``); later calls map the cache into memory.

    Args:
        root: the folder that holds one of these, directly or in ``mini_imagenet/`` or ``mini-imagenet/``:
            ``train.csv``, ``val.csv`` and ``test.csv`` (columns filename and label) with the images in ``images``,
            ``images.tar.xz``, ``images.tar.gz``, ``images.tar`` or ``images.zip``; or the pickle caches
            ``mini-imagenet-cache-train.pkl``, ``-val`` and ``-test``, which are read without running code.
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Returns:
        Images ``[examples, 3, 84, 84]`` of uint8.

    Raises:
        FileNotFoundError: files are missing; the message says which.
        ValueError: ``split`` is unknown, or a file is damaged.

    Examples:
        >>> images = mini_imagenet("data", "train")  # doctest: +SKIP
    """
    check_path("mini_imagenet", root=root)
    check_choice("mini_imagenet", _NAMES, split=split)
    sources = mini_imagenet_files(Path(root), split)
    return cached(f"mini-imagenet-{split}", sources, lambda: _decoded(*sources) if sources[1:] else _pickled(*sources))


def mini_imagenet_files(root: Path, split: str) -> list[Path]:
    """The table of the split and the folder or archive of images; or the pickle cache that holds both.

    Raises:
        FileNotFoundError: neither exists.
    """
    name = _NAMES[split]
    for folder in (root / "mini_imagenet", root / "mini-imagenet", root):
        images = [folder / name for name in _SOURCES if (folder / name).exists()]
        if (folder / f"{name}.csv").is_file() and images:
            return [folder / f"{name}.csv", images[0]]
        if (folder / f"mini-imagenet-cache-{name}.pkl").is_file():
            return [folder / f"mini-imagenet-cache-{name}.pkl"]
    raise FileNotFoundError(
        f"miniImageNet: neither {root} nor mini_imagenet or mini-imagenet in it holds {name}.csv and the images "
        f"({', '.join(_SOURCES)}), nor mini-imagenet-cache-{name}.pkl. Put train.csv, val.csv and test.csv of Ravi and "
        "Larochelle's split and the images there; ImageNet's terms forbid redistribution, so fewstep cannot "
        "download them."
    )


def _decoded(table: Path, images: Path) -> Iterator[ClassImages]:
    labels = _labels(table)
    places = {name: place for place, name in enumerate(labels)}

    def examples() -> Iterator[Example]:
        for name, content in read_files(images, labels):
            yield labels[name], places[name], pixels(decode(content, f"{images}: {name}"), _SIZE, 3)

    return sorted_by_class(examples())


def _labels(table: Path) -> dict[str, str]:
    """The class of each file name."""
    try:
        rows = csv.DictReader(StringIO(read_regular(table, _MAX_TABLE).decode(), newline=""))
        if not {"filename", "label"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{table} must have the columns filename and label; it has {rows.fieldnames}.")
        labels = {row["filename"]: row["label"] for row in rows}
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{table} cannot be read as a table ({error}). Download it again.") from error
    if not labels or not all(labels.values()):
        raise ValueError(f"{table} names no files, or a file without a label. Download it again.")
    return labels


def _pickled(file: Path) -> Iterator[ClassImages]:
    found = read_pickle(read_regular(file), str(file))
    if not isinstance(found, dict) or not {"image_data", "class_dict"} <= set(found):
        raise ValueError(f"{file} must hold image_data and class_dict. Download it again.")
    images, classes = found["image_data"], found["class_dict"]
    wanted = (_SIZE, _SIZE, 3)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != wanted:
        raise ValueError(f"{file}: image_data must be uint8 [images, {_SIZE}, {_SIZE}, 3]. Download it again.")
    if not isinstance(classes, dict):
        raise ValueError(f"{file}: class_dict must be a dictionary from classes to positions. Download it again.")
    for name, positions in classes.items():
        whole = np.asarray(positions) if isinstance(positions, (list, tuple, np.ndarray)) else np.empty(0)
        if whole.ndim != 1 or whole.dtype.kind not in "iu":
            raise ValueError(f"{file}: the positions of class {name!r} must be a list of whole numbers.")
        if not len(whole) or whole.min() < 0 or whole.max() >= len(images):
            raise ValueError(f"{file}: class {name!r} has indices outside the {len(images)} images. Download it again.")
        yield str(name), images[whole]
