"""Methods on top of an ordinary classifier of all training classes (Ravi and Larochelle 2017, Chen et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

import fewstep
from fewstep import baselines
from fewstep.experiments.few_shot.experiment import FewShot, Method
from fewstep.experiments.few_shot.networks import AnyNetwork
from fewstep.experiments.few_shot.protocols import META_LSTM, equal_budget, mini_imagenet
from fewstep.experiments.option_types import NonNegative, Number
from fewstep.tasks import TaskSource

IMAGES = 64
"""Images of a batch in training."""


class ClassifierMethod(Method):
    """A classifier of all training classes is trained first."""

    compiles: ClassVar[bool] = False

    def train_source(self, experiment: FewShot) -> TaskSource:
        """Batches over all training classes."""
        return baselines.ClassBatches(experiment.images("train"), IMAGES)

    def tasks_per_iteration(self, experiment: FewShot) -> float:
        """The number of tasks that would hold as many images."""
        return experiment.meta_batch * IMAGES / (experiment.ways * (experiment.shots + experiment.queries))


@dataclass(frozen=True)
class FineTuning(ClassifierMethod):
    """Its head is replaced by one that is fitted to a new task's support set."""

    name = "fine-tuning"
    summary = "a classifier of all training classes, its head fitted anew"

    inner_lr: NonNegative = 0.1
    """Step size at test."""
    test_steps: Number = 100
    """Steps at test."""

    def head(self, features: int, classes: int) -> nn.Module:
        """The last layer."""
        return nn.Linear(features, classes)

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        ways, classes = experiment.ways, len(experiment.images("train").classes)
        rule, head = fewstep.GradientDescent(self.inner_lr), self.head(model.features, ways)
        few_shot = baselines.FineTuned(model.encoder(), head, ways, rule, self.test_steps)
        return baselines.PretrainedClassifier(few_shot, self.head(model.features, classes), classes)


class BaselinePlusPlus(FineTuning):
    """The same with heads whose outputs are cosine similarities."""

    name = "baseline++"
    summary = "Baseline++: the same with cosine heads"

    def head(self, features: int, classes: int) -> nn.Module:
        """The last layer."""
        return baselines.CosineHead(features, classes)


class NearestNeighbour(ClassifierMethod):
    """The label of the nearest support image, in the classifier's feature space."""

    name = "nearest-neighbour"
    summary = "nearest neighbour on a classifier's features"

    def learner(self, experiment: FewShot, model: AnyNetwork, compile: bool | str) -> nn.Module:
        classes = len(experiment.images("train").classes)
        few_shot = baselines.NearestNeighbour(model.encoder(), experiment.ways)
        return baselines.PretrainedClassifier(few_shot, nn.Linear(model.features, classes), classes)


_NEIGHBOUR, _FINE_TUNED = {1: (0.4108, 0.0070), 5: (0.5104, 0.0065)}, {1: (0.2886, 0.0054), 5: (0.4979, 0.0079)}
_PLUS_PLUS = {1: (0.4824, None), 5: (0.6643, None)}

ROWS = [
    *mini_imagenet(FineTuning(), _FINE_TUNED, META_LSTM, meta_batch=1, training={}),
    *mini_imagenet(BaselinePlusPlus(), _PLUS_PLUS, "Baseline++", meta_batch=1, training={}),
    *mini_imagenet(NearestNeighbour(), _NEIGHBOUR, META_LSTM, network="flat", training={}),
    # 5 batches of 64 images are as many as 32 tasks of 5 + 5
    *equal_budget(FineTuning(), outer_lr=1e-3, meta_batch=5),
    *equal_budget(BaselinePlusPlus(), outer_lr=1e-3, meta_batch=5),
    *equal_budget(NearestNeighbour(), meta_batch=5),
]
