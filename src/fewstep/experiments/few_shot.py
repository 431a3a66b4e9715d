"""Few-shot image classification: the rows of the MAML paper's Table 1 (section 5.2) and of what is compared with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

import fewstep
from fewstep import datasets
from fewstep.experiments.experiment import Row
from fewstep.models import Conv4
from fewstep.tasks import Episodes

Method = Literal["maml", "fomaml", "anil", "boil", "meta-sgd", "protonet"]
Data = Literal["omniglot"]


@dataclass(frozen=True)
class FewShot:
    """N-way K-shot classification of images."""

    data: Data = "omniglot"
    """Where the images come from; the folder FEWSTEP_DATA (or data) holds them."""
    method: Method = "maml"
    """What is trained."""
    ways: int = 5
    """Classes of a task, N."""
    shots: int = 1
    """Support images of a class, K."""
    queries: int = 1
    """Query images of a class in training; K at test, as in the paper."""
    inner_lr: float = 2.0
    """Step size of the inner loop, for the mean cross-entropy: N times that of the MAML paper, which divides by K."""
    steps: int = 1
    """Inner steps in training."""
    outer_lr: float = 1e-3
    """Adam's learning rate in the outer loop."""
    meta_batch: int = 32
    """Tasks per outer iteration."""
    iterations: int = 60_000
    """Outer iterations."""
    test_steps: int = 3
    """Inner steps at test."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint is tested: the best in validation, or the last."""

    @property
    def metric(self) -> Callable[..., Tensor]:
        """Accuracy."""
        return fewstep.accuracy

    def learner(self, compile: bool) -> Any:
        """The method's learner on the paper's network; norms are not adapted, as in the paper's code."""
        model = Conv4.omniglot(self.ways)
        loss, lr, steps = fewstep.cross_entropy, self.inner_lr, self.steps
        moved = {"adapts": ["*", "!*.norm.*"], "compile": compile}
        match self.method:
            case "maml":
                return fewstep.maml(model, loss, lr, steps, **moved)
            case "fomaml":
                return fewstep.fomaml(model, loss, lr, steps, **moved)
            case "meta-sgd":
                return fewstep.meta_sgd(model, loss, lr, steps, **moved)
            case "anil":
                return fewstep.anil(model, loss, lr, steps, head="head.*", compile=compile)
            case "boil":
                return fewstep.boil(model, loss, lr, steps, head="head.*", compile=compile)
        raise ValueError(f"FewShot has no method {self.method!r}.")

    def train_tasks(self) -> Episodes:
        """Classes of the training split, turned by quarter turns."""
        return self._episodes("train", self.shots, self.queries)

    def validation_tasks(self) -> Episodes:
        """Classes of the validation split."""
        return self._episodes("validation", self.shots, self.shots)

    def test_tasks(self, shots: int | None = None) -> Episodes:
        """Classes of the test split, with as many queries as shots."""
        return self._episodes("test", shots or self.shots, shots or self.shots)

    def plot(self, run: Any) -> list[Path]:
        """Nothing beside the learning curve."""
        return []

    def _episodes(self, split: Any, shots: int, queries: int) -> Episodes:
        images = datasets.omniglot(datasets.data_root(), split)
        return Episodes(images, self.ways, shots, queries, rotations=True)


_TABLE_1 = "MAML, Table 1"


@dataclass(frozen=True)
class _Setting:
    ways: int
    shots: int
    options: dict[str, Any]
    paper: dict[str, float] = field(default_factory=dict)


_OMNIGLOT = [
    _Setting(5, 1, {"steps": 1, "meta_batch": 32, "test_steps": 3}, {"maml": 0.987}),
    _Setting(5, 5, {"steps": 1, "meta_batch": 32, "test_steps": 3}, {"maml": 0.999}),
    _Setting(20, 1, {"steps": 5, "meta_batch": 16, "test_steps": 5}, {"maml": 0.958}),
    _Setting(20, 5, {"steps": 5, "meta_batch": 16, "test_steps": 5}, {"maml": 0.989}),
]
_SUMMARIES: dict[Method, str] = {
    "maml": "MAML on the paper's network",
    "fomaml": "first-order MAML",
    "anil": "almost no inner loop: only the head is adapted",
    "boil": "body only: all but the head is adapted",
    "meta-sgd": "a learned rate for every parameter",
}


def _rows() -> list[Row]:
    rows = []
    for setting in _OMNIGLOT:
        for method, summary in _SUMMARIES.items():
            name = f"omniglot-{setting.ways}way-{setting.shots}shot-{method}"
            config = FewShot("omniglot", method, setting.ways, setting.shots, setting.shots, **setting.options)
            steps = setting.options["test_steps"]
            paper = {steps: setting.paper[method]} if method in setting.paper else {}
            rows.append(Row(name, summary, config, paper, _TABLE_1 if paper else "", {"compile": False}))
    return rows


ROWS = _rows()
