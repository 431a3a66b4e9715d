"""Rapid learning or feature reuse? What adaptation changes, layer by layer (Raghu et al. 2019, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.evaluation.activations import activations
from fewstep.evaluation.evaluate import Evaluation, evaluate
from fewstep.evaluation.numbers import format_metric
from fewstep.evaluation.representation_similarity import cca, cka
from fewstep.learner import MetaLearner, select
from fewstep.learner.selection import Names
from fewstep.objectives import accuracy
from fewstep.tasks import Task, TaskSource

Similarity = Callable[[Tensor, Tensor], Tensor]
"""From two matrices ``[examples, features]`` of the same examples to a scalar."""


@dataclass(frozen=True)
class Comparison:
    """One number for every test task and for each of several things, measured on the same tasks.

    Args:
        metric: what was measured.
        names: of the things.
        values: ``[tasks, things]``.
    """

    metric: str
    names: tuple[str, ...]
    values: Tensor

    @property
    def tasks(self) -> int:
        """The number of test tasks."""
        return len(self.values)

    @property
    def mean(self) -> list[float]:
        """The mean over tasks of each."""
        return Evaluation(self.metric, self.values).mean

    @property
    def ci95(self) -> list[float]:
        """Half the width of the 95% confidence interval of each mean, as [`Evaluation`][fewstep.Evaluation] has it."""
        return Evaluation(self.metric, self.values).ci95

    def __str__(self) -> str:
        numbers = (format_metric(self.metric, m, c) for m, c in zip(self.mean, self.ci95, strict=True))
        found = (f"{name} {number}" for name, number in zip(self.names, numbers, strict=True))
        return f"{self.metric} over {self.tasks} tasks: " + ", ".join(found)


def blocks_of(model: nn.Module) -> dict[str, Names]:
    """The blocks of a network in order, with their parameters: module name → name pattern.

    These are the top-level modules that hold parameters; a ``nn.Sequential`` called ``body`` counts as the modules in
    it.

    Examples:
        >>> blocks_of(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        {'0': '0.*', '2': '2.*'}
    """
    names: list[str] = []
    for name, child in model.named_children():
        inside = [f"{name}.{part}" for part, _ in child.named_children()] if name == "body" else []
        names += inside if isinstance(child, nn.Sequential) and inside else [name]
    held = [name for name, _ in model.named_parameters()]
    return {name: f"{name}.*" for name in names if any(parameter.startswith(f"{name}.") for parameter in held)}


def positions(output: Tensor) -> Tensor:
    """Activations as ``[examples, features]``, where every position of a feature map is an example of its channels.

    ``[examples, channels, *space]`` becomes ``[examples·space, channels]``, as SVCCA takes convolutions
    (Raghu et al. 2017, section 3).
    """
    return output.flatten(1) if output.ndim < 3 else output.flatten(2).transpose(1, 2).flatten(0, 1)


def layer_similarity(
    learner: MetaLearner[Any],
    source: TaskSource,
    num_tasks: int = 600,
    steps: int | None = None,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    *,
    similarities: Mapping[str, Similarity] | None = None,
    matrix: Callable[[Tensor], Tensor] = positions,
    stream: int = 2,
    meta_batch: int = 100,
) -> dict[str, Comparison]:
    """How alike each layer's outputs for the query set are before and after adaptation (Raghu et al. 2019, figure 2).

    1 means that adaptation left the layer's features as they were. The paper finds the body near 1 and the head not.
    Take many query examples: CCA in particular is near 1 whatever happens where they are hardly more than the features.

    Args:
        learner: the learner; its model is called with ``query.x``.
        source: where the test tasks come from.
        num_tasks: how many.
        steps: inner steps; as in training if not given.
        layers: names of modules, in the order to show them; [`blocks_of`][fewstep.evaluation.blocks_of] the model if
            not given.
        seed: of the tasks.
        similarities: by name; ``{"CKA": cka, "CCA": cca}`` if not given.
        matrix: makes ``[examples, features]`` of a layer's output.
        stream: 1 for validation tasks, 2 for test tasks.
        meta_batch: tasks in memory at a time.

    Returns:
        A comparison of the layers for each similarity.

    Examples:
        >>> import fewstep
        >>> learner = fewstep.anil(fewstep.models.MLP(1, [8], 1), fewstep.mse, inner_lr=0.01, head="2.*")
        >>> found = layer_similarity(learner, fewstep.tasks.Sinusoids(shots=5, queries=20), num_tasks=5)
        >>> found["CKA"].names, round(found["CKA"].mean[0], 6)
        (('0', '2'), 1.0)
    """
    chosen = dict(similarities or {"CKA": cka, "CCA": cca})
    names = tuple(blocks_of(learner.model) if layers is None else layers)
    measured = _BeforeAndAfter(learner, names, list(chosen.values()), matrix)
    values = evaluate(measured, source, num_tasks, steps, seed=seed, stream=stream, meta_batch=meta_batch).values
    parts = values.split(len(names), dim=1)
    return {name: Comparison(name, names, part) for name, part in zip(chosen, parts, strict=True)}


class _BeforeAndAfter(nn.Module):
    """Similarities in the place of a metric, so that [`evaluate`][fewstep.evaluate] draws the tasks."""

    def __init__(
        self,
        learner: MetaLearner[Any],
        layers: Sequence[str],
        similarities: Sequence[Similarity],
        matrix: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        self.learner, self.layers, self.similarities, self.matrix = learner, layers, similarities, matrix
        self.training = learner.training

    def score(self, tasks: Task, metric: Any = None, steps: int | None = None) -> Tensor:
        return torch.stack([self._one(tasks[i], steps) for i in range(len(tasks))])

    def _one(self, task: Task, steps: int | None) -> Tensor:
        query = task.query if task.query.weight is None else task.query[task.query.weight > 0]
        before, after = (
            activations(self.learner.adapt(task.support, count), self.layers, query.x) for count in (0, steps)
        )
        pairs = [(self.matrix(before[layer]), self.matrix(after[layer])) for layer in self.layers]
        return torch.stack([similarity(a, b) for similarity in self.similarities for a, b in pairs])


def freezing(
    learner: MetaLearner[Any],
    source: TaskSource,
    num_tasks: int = 600,
    steps: int | None = None,
    metric: Callable[..., Any] = accuracy,
    blocks: Mapping[str, Names] | None = None,
    seed: int = 0,
    *,
    stream: int = 2,
    meta_batch: int = 100,
) -> Comparison:
    """The metric after adaptation at test that leaves the first 0, 1, 2, … blocks as they are.

    If the features are reused, freezing all but the head costs nothing (Raghu et al. 2019, table 1). The last row
    freezes every block.

    Args:
        learner: the learner, trained with whatever it adapts.
        source: where the test tasks come from.
        num_tasks: how many.
        steps: inner steps; as in training if not given.
        metric: ``metric(model, batch) -> scalar``.
        blocks: name of the block → its parameters (see [`select`][fewstep.learner.select]), in the order of freezing;
            [`blocks_of`][fewstep.evaluation.blocks_of] the model if not given.
        seed: of the tasks, the same ones for every row.
        stream: 1 for validation tasks, 2 for test tasks.
        meta_batch: tasks in memory at a time.

    Returns:
        A row per number of frozen blocks, named ``"none"``, then by the last block frozen.

    Raises:
        ValueError: a pattern of ``blocks`` matches no parameter.

    Examples:
        >>> import fewstep
        >>> learner = fewstep.maml(fewstep.models.MLP(1, [8], 1), fewstep.mse, inner_lr=0.01)
        >>> found = freezing(learner, fewstep.tasks.Sinusoids(), num_tasks=5, metric=fewstep.mse)
        >>> found.names
        ('none', '0', '2')
    """
    chosen = blocks_of(learner.model) if blocks is None else blocks
    names = [name for name, _ in learner.model.named_parameters()]
    adapts, values = list(learner.adapts), []
    for patterns in (None, *chosen.values()):
        if patterns is not None:
            frozen = select(patterns, names, "blocks")
            adapts = [name for name in adapts if name not in frozen]
        row, count = (learner.adapting(adapts), steps) if adapts else (learner, 0)
        found = evaluate(row, source, num_tasks, count, metric, seed, stream=stream, meta_batch=meta_batch)
        values.append(found.values[:, -1])
    return Comparison(found.metric, ("none", *chosen), torch.stack(values, dim=1))
