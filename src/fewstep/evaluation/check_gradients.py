"""A comparison of the meta-gradient with finite differences."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.adaptation import Truncated
from fewstep.adaptation.random_numbers import replayed
from fewstep.arguments import check_number, check_whole
from fewstep.evaluation.learners import check_learner
from fewstep.learner import MetaLearner, Tasks
from fewstep.objectives import reptile_loss
from fewstep.tasks import Task, generator
from fewstep.tasks.trees import mapped


@dataclass(frozen=True)
class GroupCheck:
    """The result for the parameters of one module.

    Args:
        name: the name of the module, as in ``learner.named_modules()``.
        found: the derivative along each random direction by the meta-gradient.
        expected: the derivative along each direction by central differences.
        error: the largest relative difference.
        smooth: whether central differences at two distances agree. If not, the meta-loss is not smooth nearby, and the
            comparison is inconclusive.
    """

    name: str
    found: tuple[float, ...]
    expected: tuple[float, ...]
    error: float
    smooth: bool


@dataclass(frozen=True)
class GradientCheck:
    """The result of [`check_gradients`][fewstep.check_gradients], which prints one line per module.

    Args:
        groups: one result per module with learned parameters.
        tolerance: the largest relative error that counts as correct.

    Examples:
        >>> print(GradientCheck((GroupCheck("model.0", (1.0,), (1.0,), 2e-9, smooth=True),), tolerance=1e-4))
        model.0  relative error 2.0e-09  right
    """

    groups: tuple[GroupCheck, ...]
    tolerance: float

    @property
    def wrong(self) -> list[str]:
        """The modules whose meta-gradient is wrong."""
        return [group.name for group in self.groups if group.smooth and group.error > self.tolerance]

    @property
    def unclear(self) -> list[str]:
        """The modules for which the meta-loss is not smooth, so that the comparison is inconclusive."""
        return [group.name for group in self.groups if not group.smooth]

    @property
    def ok(self) -> bool:
        """Whether no module has a wrong meta-gradient; inconclusive modules do not count."""
        return not self.wrong

    def __str__(self) -> str:
        def verdict(group: GroupCheck) -> str:
            return "not smooth" if not group.smooth else "right" if group.error <= self.tolerance else "WRONG"

        width = max(len(group.name) for group in self.groups)
        return "\n".join(f"{g.name:{width}}  relative error {g.error:.1e}  {verdict(g)}" for g in self.groups)


def check_gradients(
    learner: MetaLearner[Any],
    tasks: Tasks,
    directions: int = 2,
    tolerance: float = 1e-4,
    distance: float = 1e-6,
    seed: int = 0,
) -> GradientCheck:
    """Compare the meta-gradient with central differences of the meta-loss, module by module.

    For a random direction v, gᵀv is compared with (L(θ + εv) − L(θ − εv))/(2ε), where g is the meta-gradient and L the
    meta-loss. A copy of the learner is converted to float64, and the parameters of one module at a time are moved. The
    model's random numbers (dropout) are the same in every evaluation. The learner itself does not change.

    Args:
        learner: a learner with an exact adjoint, checked in its current mode (train or eval).
        tasks: a meta-batch; two or three small tasks are enough.
        directions: the number of random directions per module. Each takes four evaluations of the meta-loss.
        tolerance: the largest relative error that counts as correct.
        distance: the length ε of the step, as a multiple of the root mean square of the parameters.
        seed: the seed of the directions.

    Returns:
        The errors by module: print it, or read ``ok``, ``wrong`` and ``unclear``.

    Raises:
        ValueError: the adjoint omits terms of the gradient by design ([`FirstOrder`][fewstep.FirstOrder]), or the
            meta-loss is not float64.

    Examples:
        >>> import torch, fewstep
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        >>> learner = fewstep.maml(model, fewstep.mse, inner_lr=0.1, steps=2)
        >>> check_gradients(learner, fewstep.tasks.Sinusoids().sample(2)).ok
        True
    """
    check_learner("check_gradients", learner)
    check_whole("check_gradients", directions=directions)
    check_number("check_gradients", 0, above=True, tolerance=tolerance, distance=distance)
    if isinstance(tasks, Task):
        learner._checks.check_axes(tasks)
    twin = _in_float64(learner)
    adjoint = twin._choices.adjoint
    lossy = not (adjoint.exact or (isinstance(adjoint, Truncated) and adjoint.last >= twin.steps))
    if lossy or twin._choices.objective is reptile_loss:
        name = type(adjoint).__name__ if lossy else "reptile_loss"
        raise ValueError(
            f"check_gradients compares with the derivative of the meta-loss, of which {name} omits terms by "
            "design. Check the same model with adjoint=fewstep.Unrolled() and objective=fewstep.query_loss."
        )
    tasks = mapped(_doubled, tasks)
    loss = _value(twin, tasks)
    loss.backward()
    if loss.dtype != torch.float64:
        raise ValueError(
            f"The meta-loss is {loss.dtype} although parameters and data are float64; finite differences "
            "need float64. Look for .float(), dtype=... or autocast in the model and the loss."
        )
    numbers = generator(seed, 0, stream=3)
    groups = []
    for name, values in _groups(twin).items():
        pairs = [_along(twin, tasks, values, numbers, distance) for _ in range(directions)]
        found, near, far = zip(*pairs, strict=True)
        floor = 1e-6 * abs(loss.item()) + 1e-12  # rounding of a difference
        errors = [abs(f - n) / max(abs(f), abs(n), floor) for f, n in zip(found, near, strict=True)]
        gaps = [abs(n - f) / max(abs(n), abs(f), floor) for n, f in zip(near, far, strict=True)]
        smooth = all(gap <= 10 * tolerance for gap in gaps)
        groups.append(GroupCheck(name, found, near, max(errors), smooth))
    return GradientCheck(tuple(groups), tolerance)


def _in_float64(learner: MetaLearner[Any]) -> MetaLearner[Any]:
    twin = copy.deepcopy(learner)._apply(_doubled)
    twin.__dict__["compiles"] = False
    twin._choices.compares = False
    twin.zero_grad(set_to_none=True)
    return twin


def _doubled(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.double() if tensor.is_floating_point() else tensor


def _value(learner: MetaLearner[Any], tasks: Tasks) -> Tensor:
    with replayed():
        return learner.meta_loss(tasks)


def _groups(learner: nn.Module) -> dict[str, list[Tensor]]:
    """The learned parameters by module."""
    groups: dict[str, list[Tensor]] = {}
    for name, value in learner.named_parameters():
        if value.requires_grad:
            groups.setdefault(name.rpartition(".")[0], []).append(value)
    return groups


def _along(
    learner: MetaLearner[Any], tasks: Tasks, values: Sequence[Tensor], numbers: torch.Generator, distance: float
) -> tuple[float, float, float]:
    """The derivative along one random direction: by the gradient, and by differences at two distances."""
    directions = [torch.randn(value.shape, generator=numbers, dtype=value.dtype).to(value.device) for value in values]
    count = sum(value.numel() for value in values)
    size = sum(value.detach().abs().square().sum() for value in values)
    scale = distance * max(float((size / count) ** 0.5), 1e-3)
    found = sum(
        0.0 if value.grad is None else float((value.grad * direction.conj()).sum().real)
        for value, direction in zip(values, directions, strict=True)
    )

    def slope(step: float) -> float:
        ends = []
        for sign in (1, -1):
            with _moved(values, directions, sign * step):
                ends.append(_value(learner, tasks).item())
        return (ends[0] - ends[1]) / (2 * step)

    return found, slope(scale), slope(2 * scale)


class _moved:  # noqa: N801 - reads as a verb in a with statement
    """A context in which parameters are moved; afterwards their values are restored exactly."""

    def __init__(self, values: Sequence[Tensor], directions: Sequence[Tensor], step: float) -> None:
        self.values, self.directions, self.step = values, directions, step

    @torch.no_grad()
    def __enter__(self) -> None:
        self.before = [value.clone() for value in self.values]
        for value, direction in zip(self.values, self.directions, strict=True):
            value.add_(direction, alpha=self.step)

    @torch.no_grad()
    def __exit__(self, *error: object) -> None:
        for value, before in zip(self.values, self.before, strict=True):
            value.copy_(before)
