"""miniImageNet (Vinyals et al. 2016) in the split of Ravi and Larochelle 2017: 64, 16 and 20 classes of ImageNet."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from fewstep.datasets.archives import read_files
from fewstep.datasets.cache import ClassImages, cached
from fewstep.datasets.decoding import decode, pixels
from fewstep.datasets.labelled_images import LabelledImages
from fewstep.datasets.pickles import read_pickle
from fewstep.datasets.sorting import Example, sorted_by_class

Split = Literal["train", "validation", "test"]

_NAMES = {"train": "train", "validation": "val", "test": "test"}
_SIZE = 84
_SOURCES = ("images", "images.tar.xz", "images.tar.gz", "images.tar", "images.zip")


def mini_imagenet(root: str | Path, split: Split) -> LabelledImages:
    """Photographs of animals and things, ``[3, 84, 84]``; 600 of each class where the copy is complete.

    Images of other sizes are scaled to 84×84 with Lanczos' filter, as in the MAML paper's code; those that have this
    size are taken as they are. The first call decodes the split (about a minute for ``train``), later ones map
    the cache into memory.

    Args:
        root: the folder that holds ``train.csv``, ``val.csv`` and ``test.csv`` (columns filename and label) and the
            images, as the folder ``images`` or as ``images.tar.xz``, ``images.tar.gz``, ``images.tar`` or
            ``images.zip``; or the pickle caches ``mini-imagenet-cache-train.pkl``, ``-val`` and ``-test``, which are
            read without running code; or one with these in ``mini_imagenet/`` or ``mini-imagenet/``.
        split: which classes.

    Raises:
        FileNotFoundError: files are missing; the message says which.
        ValueError: there is no such split, or a file is damaged.
    """
    if split not in _NAMES:
        raise ValueError(f"mini_imagenet: split must be one of {list(_NAMES)}; got {split!r}.")
    sources = mini_imagenet_files(Path(root), split)
    return cached(f"mini-imagenet-{split}", sources, lambda: _decoded(*sources) if sources[1:] else _pickled(*sources))


def mini_imagenet_files(root: Path, split: str) -> list[Path]:
    """The table of the split's files and where the images are; or the pickle cache that holds both.

    Raises:
        FileNotFoundError: neither is there.
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
        "Larochelle's split and the images there; ImageNet's terms forbid passing them on, so fewstep cannot fetch "
        "them."
    )


def _decoded(table: Path, images: Path) -> Iterator[ClassImages]:
    labels = _labels(table)
    places = {name: place for place, name in enumerate(labels)}

    def examples() -> Iterator[Example]:
        for name, content in read_files(images, labels):
            yield labels[name], places[name], pixels(decode(content, f"{images}: {name}"), _SIZE, 3)

    return sorted_by_class(examples())


def _labels(table: Path) -> dict[str, str]:
    """The class of each file, by its name."""
    with open(table, newline="") as file:
        rows = csv.DictReader(file)
        if not {"filename", "label"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{table} should have the columns filename and label; it has {rows.fieldnames}.")
        labels = {row["filename"]: row["label"] for row in rows}
    if not labels or not all(labels.values()):
        raise ValueError(f"{table} names no files, or a file without a label; get it anew.")
    return labels


def _pickled(file: Path) -> Iterator[ClassImages]:
    found = read_pickle(file.read_bytes(), str(file))
    if not isinstance(found, dict) or not {"image_data", "class_dict"} <= set(found):
        raise ValueError(f"{file} should hold image_data and class_dict; get it anew.")
    images, classes = found["image_data"], found["class_dict"]
    wanted = (_SIZE, _SIZE, 3)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != wanted:
        raise ValueError(f"{file}: image_data should be uint8 [images, {_SIZE}, {_SIZE}, 3]; get it anew.")
    for name, positions in classes.items():
        if not len(positions) or min(positions) < 0 or max(positions) >= len(images):
            raise ValueError(f"{file}: class {name!r} names images that are not among the {len(images)}; get it anew.")
        yield name, images[np.asarray(positions)]
