"""Few-shot classification of images: the setting, and what a method of it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

import fewstep
from fewstep import datasets
from fewstep.datasets import LabelledImages
from fewstep.experiments import experiment as any_experiment
from fewstep.experiments.experiment import Experiment
from fewstep.experiments.few_shot.networks import AnyNetwork, Network, network
from fewstep.experiments.option_types import Count, NonNegative
from fewstep.experiments.other_norms import OtherNorm, check_norm
from fewstep.models.normalization import Policy
from fewstep.tasks import Episodes, TaskSource

Data = Literal["glyphs", "omniglot", "mini-imagenet", "cifar-fs", "fc100"]


@dataclass(frozen=True)
class Method(any_experiment.Method):
    """A method of few-shot classification. Its fields are its own options; a subclass that adds some is decorated.

    Each stands in a file of `fewstep.experiments.few_shot.methods` with its rows; docs/contributing.md explains one.
    """

    training: ClassVar[dict[str, Any]] = {}
    """Fields of `Training` that every row of the method needs."""
    other_norms: ClassVar[tuple[OtherNorm, ...]] = ()
    """Normalisation policies that every row is tested under in addition to its own."""
    extra_channels: ClassVar[int] = 0
    """Channels of the network's input in addition to those of the images."""

    @abstractmethod
    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> torch.nn.Module:
        """A fresh learner.

        Args:
            experiment: the setting.
            model: its network.
            compile: that of `MetaLearner`; learners of other kinds are not compiled.
        """

    def train_source(self, experiment: FewShot) -> TaskSource:
        """Where training tasks come from."""
        return experiment.episodes("train", experiment.shots, experiment.queries)

    def tasks_per_iteration(self, experiment: FewShot) -> float:
        """Training tasks of one outer iteration."""
        return experiment.meta_batch


@dataclass(frozen=True)
class FewShot(Experiment):
    """N-way K-shot classification of images."""

    method: Method
    data: Data = "omniglot"
    """Where the images come from: glyphs are made on the spot; others lie in the folder FEWSTEP_DATA, or data."""
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
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser of the outer loop."""
    outer_lr: NonNegative = 1e-3
    """Learning rate of the outer loop."""
    meta_batch: Count = 32
    """Tasks per outer iteration; for pretrained classifiers, batches of 64 images."""
    iterations: Count = 60_000
    """Outer iterations."""
    test_queries: Count | None = None
    """Query images of a class at test; as many as shots if not given, as in the paper."""
    test_shots: Count | None = None
    """Support images of a class at test, where it differs from training."""
    test_checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint is tested: the best in validation, or the last."""

    former_options: ClassVar[frozenset[str]] = frozenset(
        ("adapts_norms", "inner_lr", "steps", "inner_batch", "learned_rates", "multi_step", "order_annealing",
         "regularization", "damping", "test_steps")
    )  # fmt: skip

    @property
    def tasks_per_iteration(self) -> float:
        """Training tasks of one outer iteration."""
        return self.method.tasks_per_iteration(self)

    @property
    def work_per_iteration(self) -> float:
        """Images that go through the network in one outer iteration, large images counted nine times."""
        pixels = 1 if self.data in ("omniglot", "glyphs") else 9  # 28² against 84²
        images = self.ways * (self.shots * max(1, self.method.steps) + self.queries)
        return float(self.meta_batch * images * pixels)

    @property
    def metric(self) -> Callable[..., Tensor]:
        """Accuracy."""
        return fewstep.accuracy

    def learner(self, compile: bool | str) -> Any:
        """The method's learner, on the network for the images."""
        channels, size = self.images("train").images.shape[1:3]
        steps, extra = max(1, self.method.steps), self.method.extra_channels
        model = network(self.network, channels, size, self.ways, self.filters, self.norm, steps, extra)
        return self.method.learner(self, model, compile)

    def outer_optimizer(self, learner: torch.nn.Module) -> torch.optim.Optimizer:
        """Adam, or plain gradient descent."""
        learned = [value for value in learner.parameters() if value.requires_grad]
        if self.optimizer == "sgd":
            return torch.optim.SGD(learned, self.outer_lr)
        return torch.optim.Adam(learned, self.outer_lr, fused=True)

    def train_source(self) -> TaskSource:
        """Tasks of the training classes; batches over all of them for a pretrained classifier."""
        return self.method.train_source(self)

    def validation_source(self) -> Episodes:
        """Tasks of the validation classes."""
        return self._test_episodes("validation", None)

    def test_source(self, shots: int | None = None, queries: int | None = None) -> Episodes:
        """Tasks of the test classes."""
        return self._test_episodes("test", shots, queries)

    def test_protocol(self) -> dict[str, Any]:
        return {**super().test_protocol(), "queries": self.test_queries or self.test_shots or self.shots}

    def plot(self, run: Any) -> list[Path]:
        """The first test task with more query images than at test, classified before and after adaptation."""
        from fewstep.figures.episodes import plot_episode, queries_that_fit

        shots = self.test_shots or self.shots
        left_over = int(self.images("test").counts.min()) - shots
        source = self.test_source(queries=min(queries_that_fit(self.ways, shots), left_over))
        steps = self.test_steps if self.method.takes_steps else None
        which, state = run.checkpoint()
        title = f"{run.name}: the first test task, {which} checkpoint (iteration {state['iteration']:,})"
        return [plot_episode(run.load_learner(), source, steps, run.folder.path / "episode.png", title)]

    def example(self, run: Any) -> tuple[Any, str]:
        """The first test task with a few query images, for a report."""
        from fewstep.figures.episodes import draw_episode

        left_over = int(self.images("test").counts.min()) - (self.test_shots or self.shots)
        steps = self.test_steps if self.method.takes_steps else None
        drawn = draw_episode(run.load_learner(), self.test_source(queries=min(4, left_over)), steps)
        return drawn, "The first test task: support images, and query images with the classes predicted for them."

    def unused_options(self) -> dict[str, str]:
        """``filters``, where the network's widths are fixed."""
        fixed = self.network in ("no-conv", "resnet12")
        return {"filters": f"the widths of the network {self.network!r} are fixed"} if fixed else {}

    def under_norm(self, norm: OtherNorm) -> FewShot:
        check_norm(self.norm, norm)
        return replace(self, norm=norm)

    def episodes(self, split: str, shots: int, queries: int) -> Episodes:
        """Tasks of a split's classes; Omniglot's characters are also rotated, as in the paper."""
        return Episodes(self.images(split), self.ways, shots, queries, rotations=self.data == "omniglot")

    def images(self, split: Any) -> LabelledImages:
        """The classes of a split: ``"train"``, ``"validation"`` or ``"test"``."""
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

    def _test_episodes(self, split: str, shots: int | None, queries: int | None = None) -> Episodes:
        shots = shots or self.test_shots or self.shots
        return self.episodes(split, shots, queries or self.test_queries or shots)
