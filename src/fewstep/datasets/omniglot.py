"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 1,623 characters of 50 alphabets, each drawn by 20 people."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np

from fewstep.arguments import check_choice, check_path, check_whole
from fewstep.datasets.archives import DAMAGE, read_member
from fewstep.datasets.cache import ClassImages, cached
from fewstep.datasets.decoding import decode, pixels
from fewstep.datasets.labelled_images import LabelledImages
from fewstep.files import check_regular, read_regular

Split = Literal["train", "validation", "test", "background", "evaluation"]

_PARTS = {"background": 964, "evaluation": 659}
_VALIDATION = {"Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)"}
_FIRST_TEST = ("Gurmukhi", "character42")
"""In sorted order, evaluation characters before this one are for training; the others are for test."""


def omniglot(root: str | Path, split: Split, size: int = 28) -> LabelledImages:
    """Load Omniglot: handwritten characters, white (255) on black, 20 images of each.

    The splits ``"train"``, ``"validation"`` and ``"test"`` have the usual 1028, 172 and 423 characters;
    ``"background"`` and ``"evaluation"`` have the 964 and 659 of the original (Lake et al. 2015). Images are scaled
    with the Lanczos filter, as in the MAML paper's code.

    Args:
        root: the folder that holds ``images_background`` and ``images_evaluation``, extracted or as zip files, directly
            or in ``omniglot/``.
        split: which characters to load.
        size: height and width in pixels; the originals have 105.

    Returns:
        Images ``[examples, 1, size, size]`` of uint8.

    Raises:
        FileNotFoundError: files are missing; the message says which, and where to get them.
        ValueError: ``split`` is unknown, an image cannot be read, or characters are missing.

    Examples:
        >>> images = omniglot("data", "train")  # doctest: +SKIP
    """
    parts = {"train": ["background", "evaluation"], "validation": ["background"], "test": ["evaluation"]}
    check_path("omniglot", root=root)
    check_whole("omniglot", size=size)
    check_choice("omniglot", get_args(Split), split=split)
    sources = [omniglot_source(Path(root), part) for part in parts.get(split, [split])]

    def build() -> Iterator[ClassImages]:
        for source in sources:
            yield from _characters(source, split, size)

    return cached(f"omniglot-{split}", sources, build, size=size)


def omniglot_source(root: Path, part: str) -> Path:
    """The zip file or folder of a part, ``background`` or ``evaluation``.

    Raises:
        FileNotFoundError: neither exists.
    """
    for folder in (root, root / "omniglot"):
        for name in (f"images_{part}.zip", f"images_{part}"):
            if (folder / name).exists():
                return folder / name
    raise FileNotFoundError(
        f"Omniglot: neither images_{part}.zip nor the folder images_{part} is in {root} or {root / 'omniglot'}. "
        "Download them with `fewstep data download omniglot`, or get images_background.zip and images_evaluation.zip "
        "from github.com/brendenlake/omniglot (folder python) and put them there."
    )


def _characters(source: Path, split: str, size: int) -> Iterator[ClassImages]:
    """Yield the characters of one part that belong to the split, in the order of their names."""
    part = source.name.removeprefix("images_").removesuffix(".zip")
    if source.is_dir():
        yield from _read(
            source,
            [p.relative_to(source.parent).as_posix() for p in source.rglob("*.png")],
            lambda name: read_regular(source.parent / name),
            part,
            split,
            size,
        )
        return
    check_regular(source)
    try:
        with zipfile.ZipFile(source) as archive:
            yield from _read(
                source, archive.namelist(), lambda path: read_member(archive, path, source), part, split, size
            )
    except DAMAGE as error:
        raise ValueError(f"{source} is damaged ({error}). Download it again.") from error


def _read(
    source: Path, names: list[str], read: Callable[[str], bytes], part: str, split: str, size: int
) -> Iterator[ClassImages]:
    drawings: dict[tuple[str, str], list[str]] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix == ".png" and len(path.parts) == 4:
            drawings.setdefault((path.parts[1], path.parts[2]), []).append(name)
    if len(drawings) != _PARTS[part]:
        raise ValueError(f"{source} must hold {_PARTS[part]} characters; it holds {len(drawings)}. Download it again.")
    for (alphabet, character), files in drawings.items():
        if len(files) != 20:
            raise ValueError(f"{source}: {alphabet}/{character} must have 20 images; it has {len(files)}.")
        if _belongs(part, alphabet, character, split):
            yield (
                f"{alphabet}/{character}",
                np.stack([_decode(read(file), f"{source}: {file}", size) for file in files]),
            )


def _belongs(part: str, alphabet: str, character: str, split: str) -> bool:
    if split in _PARTS:
        return True
    if part == "background":
        return (alphabet in _VALIDATION) == (split == "validation")
    return ((alphabet, character) >= _FIRST_TEST) == (split == "test")


def _decode(content: bytes, name: str, size: int) -> np.ndarray:
    image = decode(content, name)
    if image.size != (105, 105):
        raise ValueError(f"{name} must be 105×105; it is {image.size[0]}×{image.size[1]}.")
    return 255 - pixels(image, size, 1)
