"""What adaptation changes, layer by layer: rapid learning or feature reuse (Raghu et al. 2019, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.arguments import check_module
from fewstep.evaluation.activations import activations
from fewstep.evaluation.evaluate import Evaluation, evaluate
from fewstep.evaluation.learners import check_learner
from fewstep.evaluation.numbers import format_metric
from fewstep.evaluation.representation_similarity import cca, cka
from fewstep.learner import MetaLearner, select
from fewstep.learner.selection import Names
from fewstep.objectives import accuracy
from fewstep.tasks import Task, TaskSource

Similarity = Callable[[Tensor, Tensor], Tensor]
"""A function from two matrices ``[examples, features]`` of the same examples to a scalar."""


@dataclass(frozen=True)
class Comparison:
    """The values of a metric for several rows, such as layers, on the same test tasks.

    Args:
        metric: the name of the metric.
        names: the names of the rows.
        values: ``[tasks, rows]``.

    Examples:
        >>> print(Comparison("CKA", ("body", "head"), torch.tensor([[1.0, 0.5], [1.0, 0.7]])))
        CKA over 2 tasks: body 1.0000 ± 0.0000, head 0.6000 ± 0.1960
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
        """The mean over tasks of each row."""
        return Evaluation(self.metric, self.values).mean

    @property
    def ci95(self) -> list[float]:
        """Half the width of the 95% confidence interval of each mean, as in [`Evaluation`][fewstep.Evaluation]."""
        return Evaluation(self.metric, self.values).ci95

    def __str__(self) -> str:
        numbers = (format_metric(self.metric, m, c) for m, c in zip(self.mean, self.ci95, strict=True))
        found = (f"{name} {number}" for name, number in zip(self.names, numbers, strict=True))
        return f"{self.metric} over {self.tasks} tasks: " + ", ".join(found)


def blocks_of(model: nn.Module) -> dict[str, Names]:
    """List the blocks of a network in order, with the pattern of their parameter names.

    Blocks are the top-level modules that have parameters; an ``nn.Sequential`` called ``body`` is replaced by its
    modules.

    Args:
        model: the network.

    Returns:
        A dictionary from module name to name pattern.

    Examples:
        >>> blocks_of(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        {'0': '0.*', '2': '2.*'}
    """
    check_module("blocks_of", model=model)
    names: list[str] = []
    for name, child in model.named_children():
        inside = [f"{name}.{part}" for part, _ in child.named_children()] if name == "body" else []
        names += inside if isinstance(child, nn.Sequential) and inside else [name]
    held = [name for name, _ in model.named_parameters()]
    return {name: f"{name}.*" for name in names if any(parameter.startswith(f"{name}.") for parameter in held)}


def positions(output: Tensor) -> Tensor:
    """Reshape activations to a matrix, with every position of a map as an example (Raghu et al. 2017, section 3).

    Args:
        output: ``[examples, channels, *space]`` or ``[examples, features]``.

    Returns:
        ``[examples·space, channels]``, or the output itself.

    Examples:
        >>> positions(torch.zeros(2, 8, 5, 5)).shape
        torch.Size([50, 8])
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
    """Compute the similarity of each layer's outputs before and after adaptation (Raghu et al. 2019, figure 2).

    The outputs are those for the query set. 1 means that adaptation did not change the layer's features. In the paper,
    the body is near 1 and the head is not. Use many query examples: CCA is near 1 for any features where there are
    hardly more examples than features.

    Args:
        learner: the learner, whose model is called with ``query.x``.
        source: the source of the test tasks.
        num_tasks: the number of test tasks.
        steps: the number of inner steps; as in training if not given.
        layers: the names of modules; the model's [`blocks_of`][fewstep.evaluation.blocks_of] if not given.
        seed: the seed of the tasks.
        similarities: similarity functions by name; ``{"CKA": cka, "CCA": cca}`` if not given.
        matrix: a function from a layer's output to a matrix ``[examples, features]``.
        stream: 1 for validation tasks, 2 for test tasks.
        meta_batch: the number of tasks in memory at a time.

    Returns:
        A comparison of the layers per similarity, by name.

    Examples:
        >>> import fewstep
        >>> learner = fewstep.anil(fewstep.models.MLP(1, [8], 1), fewstep.mse, inner_lr=0.01, head="2.*")
        >>> found = layer_similarity(learner, fewstep.tasks.Sinusoids(shots=5, queries=20), num_tasks=5)
        >>> found["CKA"].names, round(found["CKA"].mean[0], 6)
        (('0', '2'), 1.0)
    """
    check_learner("layer_similarity", learner)
    if similarities is not None and (not isinstance(similarities, Mapping) or not similarities):
        raise TypeError(f"layer_similarity: similarities must be a dictionary of functions; got {similarities!r}.")
    if layers is not None and (isinstance(layers, str) or not isinstance(layers, Sequence) or not layers):
        raise TypeError(f"layer_similarity: layers must be a list of one or more names; got {layers!r}.")
    chosen = dict(similarities or {"CKA": cka, "CCA": cca})
    names = tuple(blocks_of(learner.model) if layers is None else layers)
    measured = _BeforeAndAfter(learner, names, list(chosen.values()), matrix)
    values = evaluate(measured, source, num_tasks, steps, seed=seed, stream=stream, meta_batch=meta_batch).values
    parts = values.split(len(names), dim=1)
    return {name: Comparison(name, names, part) for name, part in zip(chosen, parts, strict=True)}


class _BeforeAndAfter(nn.Module):
    """A learner whose score is the similarity before and after adaptation, for use with ``evaluate``."""

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
    """Compute a metric after adaptation with the first 0, 1, 2, ... blocks frozen (Raghu et al. 2019, table 1).

    If features are reused, freezing all blocks except the head does not change the metric. The last row freezes every
    block.

    Args:
        learner: the trained learner.
        source: the source of the test tasks.
        num_tasks: the number of test tasks.
        steps: the number of inner steps; as in training if not given.
        metric: a function of (model, batch) that returns a scalar tensor or a number.
        blocks: a dictionary from the name of a block to the patterns of its parameters, in the order of freezing; the
            model's [`blocks_of`][fewstep.evaluation.blocks_of] if not given.
        seed: the seed of the tasks, which are the same for every row.
        stream: 1 for validation tasks, 2 for test tasks.
        meta_batch: the number of tasks in memory at a time.

    Returns:
        One row per number of frozen blocks, named ``"none"``, and then by the last frozen block.

    Raises:
        ValueError: a pattern of ``blocks`` matches no parameter.

    Examples:
        >>> import fewstep
        >>> learner = fewstep.maml(fewstep.models.MLP(1, [8], 1), fewstep.mse, inner_lr=0.01)
        >>> found = freezing(learner, fewstep.tasks.Sinusoids(), num_tasks=5, metric=fewstep.mse)
        >>> found.names
        ('none', '0', '2')
    """
    check_learner("freezing", learner)
    if blocks is not None and not isinstance(blocks, Mapping):
        raise TypeError(f"freezing: blocks must be a dictionary from names to patterns; got {blocks!r}.")
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
