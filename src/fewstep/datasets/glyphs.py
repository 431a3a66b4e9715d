"""A few-shot data set without a download: characters of many scripts, rendered with the fonts of matplotlib."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from fewstep.arguments import check_choice
from fewstep.datasets.cache import ClassImages, cached
from fewstep.datasets.labelled_images import LabelledImages

if TYPE_CHECKING:
    from PIL import ImageFont

Split = Literal["train", "validation", "test"]

_FAMILIES = {
    "DejaVuSans": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "DejaVuSansMono": ("", "-Bold", "-Oblique", "-BoldOblique"),
    "DejaVuSerif": ("", "-Bold", "-Italic", "-BoldItalic"),
    "STIXGeneral": ("", "Bol", "Italic", "BolIta"),
}
_LEAST_FONTS = 4
_KINDS = {"Lu", "Ll", "Lo", "Nd", "Sc", "Sm"}
_ALIKE = 0.9
_EXAMPLES = 20
_SIZE, _DRAWN = 28, 48


def glyphs(split: Split) -> LabelledImages:
    """Make a data set of letters, digits and signs, white (255) on black, with 20 images of each.

    A class is a character; an example is its rendering in one of up to 16 fonts with a random affine distortion.
    Characters that resemble an earlier one are left out. Of every ten characters, seven are for training, one for
    validation and two for test. The images depend only on the versions of Python, matplotlib and Pillow.

    Args:
        split: ``"train"``, ``"validation"`` or ``"test"``.

    Returns:
        Images ``[examples, 1, 28, 28]`` of uint8.

    Raises:
        ValueError: ``split`` is unknown.

    Examples:
        >>> test = glyphs("test")
        >>> test.images.shape[1:], test.counts.unique()
        (torch.Size([1, 28, 28]), tensor([20]))
    """
    parts = {"train": range(7), "validation": range(7, 8), "test": range(8, 10)}
    check_choice("glyphs", parts, split=split)

    def build() -> Iterator[ClassImages]:
        characters = _characters()
        order = np.random.default_rng(0).permutation(len(characters))
        for place, i in enumerate(order):
            if place % 10 in parts[split]:
                yield characters[i], _examples(characters[i])

    return cached(f"glyphs-{split}", list(_fonts()), build)


@cache
def _fonts() -> dict[Path, frozenset[int]]:
    """The font files, each with the code points that it contains."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    files = [folder / f"{family}{style}.ttf" for family, styles in _FAMILIES.items() for style in styles]
    return {file: frozenset(FT2Font(str(file)).get_charmap()) for file in files}


@cache
def _opened(file: Path) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(file), _DRAWN, layout_engine=ImageFont.Layout.BASIC)


def _fonts_with(character: str) -> list[Path]:
    return [file for file, has in _fonts().items() if ord(character) in has]


@cache
def _characters() -> list[str]:
    """Characters without accents that enough fonts contain, and that do not resemble an earlier one."""
    known = sorted({code for has in _fonts().values() for code in has})
    candidates = [
        chr(code)
        for code in known
        if unicodedata.category(chr(code)) in _KINDS
        and not unicodedata.decomposition(chr(code))
        and len(_fonts_with(chr(code))) >= _LEAST_FONTS
    ]
    candidates = [c for c in candidates if _drawn(c, _fonts_with(c)[0]).any()]
    upright = np.eye(2)
    shapes = np.stack([_distorted(_drawn(c, _fonts_with(c)[0]), upright, np.zeros(2)) for c in candidates])
    flat = shapes.reshape(len(candidates), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    alike = flat @ flat.T
    kept: list[int] = []
    for i in range(len(candidates)):
        if not (alike[i, kept] > _ALIKE).any():
            kept.append(i)
    return [candidates[i] for i in kept]


def _examples(character: str) -> np.ndarray:
    """The images of a character, ``[examples, size, size, 1]``."""
    random = np.random.default_rng(ord(character))
    fonts = _fonts_with(character)
    images = []
    for _ in range(_EXAMPLES):
        angle, shear = random.uniform(-0.25, 0.25), random.uniform(-0.3, 0.3)
        scale = np.diag(random.uniform(0.75, 1.05, 2))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        font = fonts[random.integers(len(fonts))]
        shift = random.uniform(-2, 2, 2)
        images.append(_distorted(_drawn(character, font), turn @ np.array([[1, shear], [0, 1]]) @ scale, shift))
    return np.stack(images)[..., None]


def _drawn(character: str, font: Path) -> np.ndarray:
    """The rendered character, cropped to its ink."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = (int(edge) for edge in _opened(font).getbbox(character))
    image = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(image).text((-left, -top), character, fill=255, font=_opened(font))
    return np.asarray(image.crop(image.getbbox() or (0, 0, 1, 1)))


def _distorted(ink: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The character scaled to fill 72% of the image, transformed by a matrix about its centre, and shifted."""
    from PIL import Image

    height, width = ink.shape
    fit = 2 * _SIZE * 0.72 / max(height, width)
    back = np.linalg.inv(matrix) / fit
    middle = np.array([width, height]) / 2 - back @ (_SIZE + 2 * shift)
    (a, b), (c, d) = back
    padded = Image.fromarray(ink).transform(
        (2 * _SIZE, 2 * _SIZE), Image.Transform.AFFINE, (a, b, middle[0], c, d, middle[1]), Image.Resampling.BICUBIC
    )
    return np.asarray(padded.reduce(2))
