"""Few-shot image classification: an experiment's settings, and the rows of the papers' tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

import fewstep
from fewstep import datasets
from fewstep.baselines import ClassBatches
from fewstep.experiments.few_shot_methods import (
    ClassifierMethod,
    EpisodicMethod,
    Method,
    Network,
    make_learner,
    network,
)
from fewstep.experiments.option_types import Count, NonNegative, Number
from fewstep.models.normalization import Policy
from fewstep.tasks import Episodes, TaskSource

Data = Literal["glyphs", "omniglot", "mini-imagenet", "cifar-fs", "fc100"]
_BATCH = 64
"""Images of a pretrained classifier's batch."""


@dataclass(frozen=True)
class FewShot:
    """N-way K-shot classification of images."""

    data: Data = "omniglot"
    """Where the images come from: glyphs are made on the spot; others lie in the folder FEWSTEP_DATA, or data."""
    method: Method = "maml"
    """What is trained."""
    ways: Count = 5
    """Classes of a task, N."""
    shots: Count = 1
    """Support images of a class, K."""
    queries: Count = 1
    """Query images of a class in training."""
    network: Network = "paper"
    """paper: the MAML paper's for the data; flat: with scales and a Xavier head on flattened features; no-conv: the
    MAML paper's without convolutions; maml++: that paper's; resnet12."""
    filters: Count = 64
    """Of every convolution of paper, flat and maml++; the other networks have fixed widths."""
    norm: Policy = "batch"
    """Whose statistics normalise: batch (transductive, the paper's), support, running, per_step, group, layer, none."""
    adapts_norms: bool = False
    """Whether the inner loop moves the norms' scales and shifts."""
    inner_lr: NonNegative = 2.0
    """Step size of the inner loop, for the mean cross-entropy: N times that of the MAML paper, which divides by K."""
    steps: Number = 1
    """Inner steps in training."""
    inner_batch: Count | None = None
    """Support images that each inner step sees, others in the next; all if not given (Reptile takes minibatches)."""
    learned_rates: bool = True
    """MAML++: learn the rates per tensor and step."""
    multi_step: bool = True
    """MAML++: the multi-step loss over the first tenth of training, 15% on mini-imagenet."""
    order_annealing: bool = True
    """MAML++: first-order over the first half of training."""
    regularization: NonNegative = 2.0
    """Implicit MAML: the weight of the pull to the shared parameters."""
    damping: NonNegative = 0.0
    """Implicit MAML: added to that weight in the linear system."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Of the outer loop; Reptile's is sgd."""
    outer_lr: NonNegative = 1e-3
    """Its learning rate."""
    meta_batch: Count = 32
    """Tasks per outer iteration; for pretrained classifiers, batches of 64 images."""
    iterations: Count = 60_000
    """Outer iterations."""
    test_steps: Number = 3
    """Inner steps at test; 0 for what takes none."""
    test_queries: Count | None = None
    """Query images of a class at test; as many as shots if not given, as in the paper."""
    test_shots: Count | None = None
    """Support images of a class at test, where it differs (Reptile trains with more)."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint is tested: the best in validation, or the last."""

    @property
    def tasks_per_iteration(self) -> float:
        """The meta-batch; for pretrained classifiers the number of tasks that would hold as many images."""
        if self.method in get_args(ClassifierMethod):
            return self.meta_batch * _BATCH / (self.ways * (self.shots + self.queries))
        return self.meta_batch

    @property
    def metric(self) -> Callable[..., Tensor]:
        """Accuracy."""
        return fewstep.accuracy

    def learner(self, compile: bool | str) -> Any:
        """The method's learner."""
        images = self._images("train")
        channels, size = images.images.shape[1:3]
        return make_learner(self, network(self, size, channels), compile, images)

    def outer_optimizer(self, learner: torch.nn.Module) -> torch.optim.Optimizer:
        """Adam, or plain gradient descent."""
        learned = [value for value in learner.parameters() if value.requires_grad]
        if self.optimizer == "sgd":
            return torch.optim.SGD(learned, self.outer_lr)
        return torch.optim.Adam(learned, self.outer_lr, fused=True)

    def train_source(self) -> TaskSource:
        """Tasks of the training classes; batches over all of them for a pretrained classifier."""
        if self.method in get_args(ClassifierMethod):
            return ClassBatches(self._images("train"), _BATCH)
        return self._episodes("train", self.shots, self.queries)

    def validation_source(self) -> Episodes:
        """Tasks of the validation classes."""
        return self._test_episodes("validation", None)

    def test_source(self, shots: int | None = None, queries: int | None = None) -> Episodes:
        """Tasks of the test classes."""
        return self._test_episodes("test", shots, queries)

    def plot(self, run: Any) -> list[Path]:
        """The first test task with more query images than at test, classified before and after adaptation."""
        from fewstep.figures.episodes import plot_episode, queries_that_fit

        shots = self.test_shots or self.shots
        left_over = int(self._images("test").counts.min()) - shots
        source = self.test_source(queries=min(queries_that_fit(self.ways, shots), left_over))
        steps = self.test_steps if takes_steps(self.method) else None
        which, state = run.checkpoint()
        title = f"{run.name}: the first test task, {which} checkpoint (iteration {state['iteration']:,})"
        return [plot_episode(run.load_learner(), source, steps, run.folder.path / "episode.png", title)]

    def example(self, run: Any) -> tuple[Any, str]:
        """The first test task with a few query images, for a report."""
        from fewstep.figures.episodes import draw_episode

        shots = self.test_shots or self.shots
        left_over = int(self._images("test").counts.min()) - shots
        steps = self.test_steps if takes_steps(self.method) else None
        drawn = draw_episode(run.load_learner(), self.test_source(queries=min(4, left_over)), steps)
        return drawn, "The first test task: support images, and query images with the classes predicted for them."

    def _test_episodes(self, split: str, shots: int | None, queries: int | None = None) -> Episodes:
        shots = shots or self.test_shots or self.shots
        return self._episodes(split, shots, queries or self.test_queries or shots)

    def _episodes(self, split: str, shots: int, queries: int) -> Episodes:
        return Episodes(self._images(split), self.ways, shots, queries, rotations=self.data == "omniglot")

    def _images(self, split: Any) -> datasets.LabelledImages:
        match self.data:
            case "omniglot":
                return datasets.omniglot(datasets.data_root(), split)
            case "mini-imagenet":
                return datasets.mini_imagenet(datasets.data_root(), split)
            case "cifar-fs":
                return datasets.cifar_fs(datasets.data_root(), split)
            case "fc100":
                return datasets.fc100(datasets.data_root(), split)
            case "glyphs":
                return datasets.glyphs(split)
        raise ValueError(f"There is no data set {self.data!r}; there are {list(get_args(Data))}.")


def takes_steps(method: str) -> bool:
    """Whether a method adapts in gradient steps."""
    return method not in (*get_args(EpisodicMethod), "nearest-neighbour")
