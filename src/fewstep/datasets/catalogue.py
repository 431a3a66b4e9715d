"""The list of data sets, and which of them are in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fewstep.datasets.cifar import cifar_100_source
from fewstep.datasets.mini_imagenet import mini_imagenet_files
from fewstep.datasets.omniglot import omniglot_source


def catalogue(root: Path) -> list[list[str]]:
    """One row per data set: name, classes per split, image shape, files found in ``root``, and where to get it."""
    omniglot = _found(root, lambda: [omniglot_source(root, part) for part in ("background", "evaluation")])
    mini = _found(root, lambda: [mini_imagenet_files(root, split)[-1] for split in ("train", "validation", "test")])
    cifar = _found(root, lambda: [cifar_100_source(root)])
    official = "www.cs.toronto.edu/~kriz/cifar.html: cifar-100-python.tar.gz"
    return [
        ["glyphs", "1146, 163, 326", "1×28×28", "always", "made from matplotlib's fonts"],
        ["omniglot", "1028, 172, 423", "1×28×28", omniglot, "fewstep data download omniglot"],
        ["mini-imagenet", "64, 16, 20", "3×84×84", mini, "train.csv, val.csv, test.csv with images/, or pickle caches"],
        ["cifar-fs", "64, 16, 20", "3×32×32", cifar, official],
        ["fc100", "60, 20, 20", "3×32×32", cifar, official],
    ]


def _found(root: Path, files: Callable[[], list[Path]]) -> str:
    try:
        return ", ".join(dict.fromkeys(str(file.relative_to(root)) for file in files()))
    except FileNotFoundError:
        return "no"
