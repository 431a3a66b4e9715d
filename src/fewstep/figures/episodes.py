"""One task as a page: its support images, and its query images with what the learner takes them for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.figures.style import COLOURS, GREY, save
from fewstep.tasks import Task, generator
from fewstep.tasks.batch import cast_like

RIGHT, WRONG = COLOURS[0], COLOURS[1]
_ROWS = 10
"""Classes below each other; more go into another column."""
_GAP, _TAG, _LABEL = 0.14, 0.3, 0.55
"""Between images, height of the tags below them, and room for a class's number, in widths of an image."""

_WIDE = 10.0
"""Pages of this width have room for the legend in one line."""


def queries_that_fit(ways: int, shots: int) -> int:
    """Query images of a class that a page has room for beside the support images."""
    return max(3, (11 if ways <= _ROWS else 6) - min(shots, 5))


def plot_episode(learner: Any, source: Any, steps: int | None, path: Path, title: str, seed: int = 0) -> Path:
    """The first test task of a seed: each query image with the classes predicted before and after adaptation.

    Blue is right and red is wrong, in the tags below an image and in its border, which is of the last prediction. Under
    batch statistics all query images on the page are classified together.

    Args:
        learner: adapts to a support set (``adapt(support, steps)``) and returns logits.
        source: of the task, such as [`Episodes`][fewstep.tasks.Episodes].
        steps: inner steps; ``None`` for learners that take none, which have one prediction.
        path: the picture to write.
        title: its title.
        seed: of the task.
    """
    drawn, photographs = _draw(*_predicted(learner, source, steps, seed), title)
    return save(drawn, path, colours=128 if photographs else 32)


def draw_episode(learner: Any, source: Any, steps: int | None, title: str = "", seed: int = 0) -> Any:
    """The figure of [`plot_episode`][fewstep.figures.episodes.plot_episode]."""
    return _draw(*_predicted(learner, source, steps, seed), title)[0]


def _predicted(learner: Any, source: Any, steps: int | None, seed: int) -> tuple[_Page, str]:
    """The page, and how many predictions are right in words."""
    training = learner.training
    learner.eval()
    task = cast_like(source.sample(1, generator(seed, 0, stream=2)), learner.parameters())[0]
    try:
        counts = [None] if steps is None else [0, steps]
        with torch.no_grad():
            predictions = [learner.adapt(task.support, count)(task.query.x).argmax(-1).cpu() for count in counts]
    finally:
        learner.train(training)
    return _Page(task.to("cpu"), predictions, source.ways), _caption(predictions, task, steps)


def _caption(predictions: list[Tensor], task: Task, steps: int | None) -> str:
    right = [int((prediction == task.query.y.cpu()).sum()) for prediction in predictions]
    total = len(task.query.y)
    if steps is None:
        return f"{right[0]} of {total} query images right"
    return f"right before adaptation: {right[0]} of {total};  after {steps} step{'s' * (steps != 1)}: {right[1]}"


@dataclass(frozen=True)
class _Page:
    """Where everything goes, in widths of an image; the origin is the upper left corner."""

    task: Task
    predictions: list[Tensor]
    ways: int

    @property
    def support(self) -> int:
        return min(5, len(self.task.support.y) // self.ways)

    @property
    def queries(self) -> int:
        return len(self.task.query.y) // self.ways

    @property
    def block(self) -> float:
        """Width of the columns of one class."""
        return _LABEL + (self.support + self.queries) * (1 + _GAP) + 2 * _GAP

    @property
    def size(self) -> tuple[float, float]:
        blocks = -(-self.ways // _ROWS)
        return blocks * (self.block + 3 * _GAP) - 3 * _GAP, 0.35 + min(self.ways, _ROWS) * self.row

    @property
    def row(self) -> float:
        return 1 + _TAG + 2 * _GAP

    def corner(self, way: int) -> tuple[float, float]:
        """Upper left corner of a class's first support image."""
        return way // _ROWS * (self.block + 3 * _GAP) + _LABEL, 0.35 + way % _ROWS * self.row

    def query_at(self, way: int, number: int) -> tuple[float, float]:
        left, top = self.corner(way)
        return left + (self.support + number) * (1 + _GAP) + 2 * _GAP, top


def _draw(page: _Page, caption: str, title: str) -> tuple[Any, bool]:
    """The figure, and whether its images are photographs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = page.size
    inch = 0.62 if page.ways <= _ROWS else 0.5  # an image
    above, below = 0.75 if title else 0.25, 1.5 if width < _WIDE else 0.75
    drawn = Figure(figsize=(width * inch + 0.3, (height + above + below) * inch))
    FigureCanvasAgg(drawn)
    axes = drawn.add_axes((0, 0, 1, 1))
    axes.set_xlim(-0.2, width + 0.25)
    axes.set_ylim(height + below, -above)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.text(0, -0.4, title, fontsize=11, va="center", parse_math=False)
    for way in range(page.ways):
        left, top = page.corner(way)
        axes.text(left - 0.3, top + 0.5, str(way + 1), fontsize=11, weight="bold", ha="center", va="center")
        if way % _ROWS == 0:
            axes.text(left, top - 0.12, "support", fontsize=8, color=GREY)
            axes.text(page.query_at(way, 0)[0], top - 0.12, "query", fontsize=8, color=GREY)
    _draw_images(axes, page)
    _draw_legend(axes, height + 0.2, caption, len(page.predictions) > 1, width >= _WIDE)
    return drawn, page.task.support.x.shape[1] > 1


def _draw_images(axes: Any, page: _Page) -> None:
    support, query = page.task.support, page.task.query
    for way in range(page.ways):
        left, top = page.corner(way)
        for number, x in enumerate(support.x[support.y == way][: page.support]):
            _draw_image(axes, x, left + number * (1 + _GAP), top)
        for number, index in enumerate((query.y == way).nonzero().flatten().tolist()):
            place = page.query_at(way, number)
            guesses = [int(prediction[index]) for prediction in page.predictions]
            colours = [RIGHT if guess == way else WRONG for guess in guesses]
            _draw_image(axes, query.x[index], *place, border=colours[-1])
            _draw_tags(axes, [str(guess + 1) for guess in guesses], colours, *place)


def _draw_image(axes: Any, image: Tensor, left: float, top: float, border: str = "#c4c8ce") -> None:
    """An image ``[channels, height, width]``; one channel is drawn as ink, dark on white."""
    from matplotlib.patches import Rectangle

    where = (left, left + 1, top + 1, top)
    if len(image) == 1:
        axes.imshow(image[0].numpy(), extent=where, cmap="gray_r", vmin=0, vmax=1, interpolation="antialiased")
    else:
        axes.imshow(image.clamp(0, 1).permute(1, 2, 0).numpy(), extent=where, interpolation="antialiased")
    strong = 2.2 if border in (RIGHT, WRONG) else 0.8
    axes.add_patch(Rectangle((left, top), 1, 1, fill=False, edgecolor=border, linewidth=strong, zorder=2))


def _draw_tags(axes: Any, words: list[str], colours: list[str], left: float, top: float) -> None:
    from matplotlib.patches import Rectangle

    width = 1 / len(words)
    for place, (word, colour) in enumerate(zip(words, colours, strict=True)):
        corner = (left + place * width, top + 1 + _GAP / 2)
        axes.add_patch(Rectangle(corner, width, _TAG, facecolor=colour, edgecolor="white", linewidth=1))
        middle = corner[0] + width / 2, corner[1] + _TAG / 2
        axes.text(*middle, word, color="white", fontsize=7.5, ha="center", va="center_baseline")


def _draw_legend(axes: Any, top: float, caption: str, adapted: bool, wide: bool) -> None:
    from matplotlib.patches import Rectangle

    axes.text(0, top, caption, fontsize=9, va="center")
    place = 0.0
    for colour, word in ((RIGHT, "right"), (WRONG, "wrong")):
        axes.add_patch(Rectangle((place, top + 0.27), 0.24, 0.24, color=colour))
        axes.text(place + 0.34, top + 0.39, word, fontsize=8, color=GREY, va="center")
        place += 1.25
    lines = ["numbers: predicted class"]
    if adapted:
        lines = ["numbers: predicted class before and after adaptation", "border: after adaptation"]
    if wide:
        axes.text(place, top + 0.39, "; ".join(lines), fontsize=8, color=GREY, va="center")
    else:
        axes.text(0, top + 0.65, "\n".join(lines), fontsize=8, color=GREY, va="top")
