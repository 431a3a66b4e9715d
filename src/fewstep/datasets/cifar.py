"""The few-shot splits of CIFAR-100 (Krizhevsky 2009): CIFAR-FS and FC100."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fewstep.arguments import check_choice, check_path
from fewstep.datasets.archives import read_files
from fewstep.datasets.cache import ClassImages, cached
from fewstep.datasets.labelled_images import LabelledImages
from fewstep.datasets.pickles import read_pickle
from fewstep.files import check_regular

Split = Literal["train", "validation", "test"]

_PIXELS = 3 * 32 * 32
_PYTHON_FILES = ("train", "test", "meta")
_BINARY_FILES = ("train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt")

_CIFAR_FS = {
    "validation": "beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter sea "
    "shark television tractor",
    "test": "baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail sweet_pepper table "
    "telephone wardrobe whale woman worm",
}
_FC100 = {
    "validation": "large_carnivores large_omnivores_and_herbivores non-insect_invertebrates small_mammals",
    "test": "aquatic_mammals insects medium_mammals people",
}
"""All other classes or superclasses are for training."""


def cifar_fs(root: str | Path, split: Split) -> LabelledImages:
    """Load CIFAR-FS (Bertinetto et al. 2019, section 4): 64, 16 and 20 classes of CIFAR-100, 600 images of each.

    Args:
        root: the folder that holds ``cifar-100-python`` or ``cifar-100-binary``, extracted or as the official .tar.gz
            file, directly or in ``cifar-100/`` or ``cifar100/``.
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Returns:
        Images ``[examples, 3, 32, 32]`` of uint8.

    Raises:
        FileNotFoundError: files are missing; the message says which, and where to get them.
        ValueError: ``split`` is unknown, or a file is damaged.

    Examples:
        >>> images = cifar_fs("data", "train")  # doctest: +SKIP
    """
    return _divided("cifar-fs", root, split, _CIFAR_FS, lambda data: [(name, name) for name in data.fine_names])


def fc100(root: str | Path, split: Split) -> LabelledImages:
    """Load FC100 (Oreshkin et al. 2018, section 4): 60, 20 and 20 classes of CIFAR-100, 600 images of each.

    The split is by superclass (12, 4 and 4), so that test classes are less similar to training classes than in
    CIFAR-FS.

    Args:
        root: as for [`cifar_fs`][fewstep.datasets.cifar_fs].
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Returns:
        Images ``[examples, 3, 32, 32]`` of uint8.

    Raises:
        FileNotFoundError: files are missing; the message says which, and where to get them.
        ValueError: ``split`` is unknown, or a file is damaged.

    Examples:
        >>> images = fc100("data", "train")  # doctest: +SKIP
    """
    return _divided(
        "fc100", root, split, _FC100, lambda data: list(zip(data.fine_names, data.superclasses(), strict=True))
    )


@dataclass(frozen=True)
class _Cifar100:
    """The training and test images of CIFAR-100 together."""

    images: np.ndarray  # [examples, 3072]: all red values by rows, then green, then blue
    fine: np.ndarray  # [examples]
    coarse: np.ndarray  # [examples]
    fine_names: list[str]
    coarse_names: list[str]

    def check(self, source: Path) -> None:
        lengths = {len(self.images), len(self.fine), len(self.coarse)}
        counts = np.bincount(self.fine, minlength=100) if len(lengths) == 1 and len(self.fine) else np.zeros(1)
        named = len(self.fine_names) == 100 and len(self.coarse_names) == 20
        if not named or len(counts) != 100 or counts.min() != counts.max() or self.coarse.max() >= 20:
            raise ValueError(
                f"{source} must hold 100 classes with the same number of images, in 20 superclasses; it holds "
                f"{len(self.images)} images, {len(self.fine_names)} and {len(self.coarse_names)} names, and from "
                f"{int(counts.min())} to {int(counts.max())} images per class. Download it again."
            )

    def superclasses(self) -> list[str]:
        """The superclass of each class."""
        first = [int((self.fine == label).argmax()) for label in range(100)]
        return [self.coarse_names[self.coarse[i]] for i in first]


def _divided(
    name: str,
    root: str | Path,
    split: str,
    held_out: dict[str, str],
    groups: Callable[[_Cifar100], list[tuple[str, str]]],
) -> LabelledImages:
    """The classes whose group belongs to the split; ``groups`` returns the (class, group) pairs."""
    check_path(name, root=root)
    check_choice(name, ("train", *held_out), split=split)
    source = cifar_100_source(Path(root))

    def build() -> Iterator[ClassImages]:
        data = _read(source)
        part = {group: part for part, names in held_out.items() for group in names.split()}
        found = groups(data)
        unknown = set(part) - {group for _, group in found}
        if unknown:
            raise ValueError(f"{source} lacks the classes {sorted(unknown)}. Download it again.")
        for label, (class_name, group) in enumerate(found):
            if part.get(group, "train") == split:
                yield class_name, data.images[data.fine == label].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)

    return cached(f"{name}-{split}", _stamped(source), build)


def cifar_100_source(root: Path) -> Path:
    """The folder or archive of CIFAR-100.

    Raises:
        FileNotFoundError: neither exists.
    """
    names = ["cifar-100-python", "cifar-100-python.tar.gz", "cifar-100-binary", "cifar-100-binary.tar.gz"]
    for folder in (root, root / "cifar-100", root / "cifar100"):
        for name in names:
            if (folder / name).exists():
                return folder / name
    raise FileNotFoundError(
        f"CIFAR-100: none of {', '.join(names)} is in {root}, {root / 'cifar-100'} or {root / 'cifar100'}. Download "
        "cifar-100-python.tar.gz from www.cs.toronto.edu/~kriz/cifar.html and put it there."
    )


def _stamped(source: Path) -> list[Path]:
    return [check_regular(file) for file in sorted(source.iterdir()) if file.is_file()] if source.is_dir() else [source]


def _read(source: Path) -> _Cifar100:
    data = _read_binary(source) if "binary" in source.name else _read_python(source)
    data.check(source)
    return data


def _read_binary(source: Path) -> _Cifar100:
    """Each row of a .bin file is the superclass, the class, and the pixels."""
    files = dict(read_files(source, _BINARY_FILES))
    parts = []
    for name in ("train.bin", "test.bin"):
        content = np.frombuffer(files[name], np.uint8)
        if len(content) % (2 + _PIXELS):
            raise ValueError(
                f"{source}: {name} is truncated: its size of {len(content)} bytes is not a multiple of {2 + _PIXELS}."
            )
        parts.append(content.reshape(-1, 2 + _PIXELS))
    rows = np.concatenate(parts)
    fine, coarse = (files[f"{kind}_label_names.txt"].decode().split() for kind in ("fine", "coarse"))
    return _Cifar100(rows[:, 2:], rows[:, 1], rows[:, 0], fine, coarse)


def _read_python(source: Path) -> _Cifar100:
    files = {name: read_pickle(content, f"{source}: {name}") for name, content in read_files(source, _PYTHON_FILES)}
    parts = [_part(files[name], f"{source}: {name}") for name in ("train", "test")]
    images, fine, coarse = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    names = files["meta"]
    if not isinstance(names, dict) or not {"fine_label_names", "coarse_label_names"} <= set(names):
        raise ValueError(f"{source}: meta must hold fine_label_names and coarse_label_names. Download it again.")
    return _Cifar100(images, fine, coarse, names["fine_label_names"], names["coarse_label_names"])


def _part(found: Any, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    wanted = ("data", "fine_labels", "coarse_labels")
    if not isinstance(found, dict) or not set(wanted) <= set(found):
        raise ValueError(f"{name} must hold {', '.join(wanted)}. Download it again.")
    images, fine, coarse = (np.asarray(found[key]) for key in wanted)
    if images.ndim != 2 or images.shape[1] != _PIXELS or images.dtype != np.uint8:
        raise ValueError(f"{name}: data must be uint8 [images, {_PIXELS}]; got {images.dtype} {images.shape}.")
    return images, fine.astype(np.int64), coarse.astype(np.int64)
