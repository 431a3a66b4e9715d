"""A check of the second derivatives of a loss: a comparison with finite differences of its gradient.

The backward of a custom ``autograd.Function`` may be correct, but wholly or partly constant for autograd, as in many
adjoint solvers of differential equations. PyTorch then raises no error; only a comparison of numbers shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fewstep.adaptation.random_numbers import replayed
from fewstep.tasks import generator

Loss = Callable[[dict[str, Tensor]], Tensor]
"""The loss of a support set as a function of the parameters."""

DISTANCES = {torch.float64: 1e-5, torch.float32: 1e-2}
"""Finite-difference step by dtype, relative to the root mean square of the parameters; other dtypes are not checked."""

DIRECTIONS = 2
TOLERATED = 0.1
AGREEING = 0.02


def own_functions(value: Tensor) -> list[str]:
    """The classes of ``autograd.Function`` in a graph that belong neither to PyTorch nor to this library."""
    kinds = (getattr(node, "_forward_cls", None) for node in _nodes(value))
    ours = ("fewstep", "torch")
    found = [k.__qualname__ for k in kinds if k is not None and k.__module__.partition(".")[0] not in ours]
    return list(dict.fromkeys(found))


def leaves_of_graph(value: Tensor, known: Sequence[Tensor]) -> list[Tensor]:
    """The leaves of a graph that require a gradient, except ``known`` tensors and what these were computed from."""
    ends = {id(tensor) for tensor in known}
    behind = {tensor.grad_fn for tensor in known if tensor.grad_fn is not None}
    nodes = _nodes(value, behind)
    return [node.variable for node in nodes if hasattr(node, "variable") and id(node.variable) not in ends]


def _nodes(value: Tensor, behind: Iterable[Any] = ()) -> Iterator[Any]:
    seen, waiting = set(behind), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting.extend(after for after, _ in node.next_functions)


def check_second_order(
    loss: Loss, params: Mapping[str, Tensor], adapted: Mapping[str, Tensor], functions: list[str]
) -> None:
    """Raise if autograd's derivative of the loss's gradient differs from finite differences of that gradient.

    Args:
        loss: the loss of the support set.
        params: all parameters.
        adapted: the adapted parameters, for which the gradient is taken.
        functions: the classes of ``autograd.Function`` that the model uses. If there are none, float32 models are not
            checked, since finite differences are inaccurate in float32.

    Raises:
        ValueError: the derivatives differ; the message names the module.
    """
    values = {**params, **adapted}
    dtypes = {value.dtype for value in values.values() if value.is_floating_point() or value.is_complex()}
    if len(dtypes) != 1 or not (functions or torch.float64 in dtypes):
        return
    distance = DISTANCES.get(dtypes.pop())
    moved = [name for name, value in values.items() if value.requires_grad and value.is_floating_point()]
    if distance is None or not moved:
        return
    numbers = generator(0, 0, stream=4)
    for _ in range(DIRECTIONS):
        check = _Directional(loss, values, list(adapted), numbers)
        if not check.gradient_is_slope(distance):
            # The gradient is not the derivative of the loss. This may be intended (a straight-through estimator, a
            # surrogate loss), or an inaccurate adjoint solver, whose second derivative is missing.
            constant = check.constant_gradients() if functions else []
            if constant:
                raise ValueError(
                    f"The gradient of the loss with respect to {', '.join(constant)} cannot be differentiated again: "
                    f"autograd has no graph of it. The model uses {', '.join(functions)}, a custom autograd.Function "
                    f"whose backward detaches something. {MEND}"
                )
            return
        if check.is_wrong(moved, distance):
            modules = {name.rpartition(".")[0] for name in moved}
            wrong = [m for m in sorted(modules) if check.is_wrong(_of(m, moved), distance)]
            where = f"the parameters of {', '.join(f'model.{m}' if m else 'model' for m in wrong)}" if wrong else "θ"
            used = f" The model uses {', '.join(functions)}, a custom autograd.Function." if functions else ""
            raise ValueError(
                f"The second derivative of the loss with respect to {where} is wrong: it differs from finite "
                f"differences of the gradient.{used} {MEND}"
            )


MEND = (
    "Write its backward with differentiable operations and torch.autograd.grad(..., "
    "create_graph=torch.is_grad_enabled()), and detach nothing; or use adjoint=fewstep.FirstOrder(), which needs first "
    "derivatives only."
)


class _Directional:
    """⟨∇L, u⟩ along random directions v of the parameters: its derivative by autograd, and by finite differences."""

    def __init__(self, loss: Loss, values: dict[str, Tensor], adapted: list[str], numbers: torch.Generator) -> None:
        self.loss, self.values, self.adapted = loss, values, adapted
        self.directions = {name: _random_like(value, numbers) for name, value in values.items()}
        self.weights = {name: _random_like(values[name], numbers) for name in adapted}
        with torch.enable_grad():
            start = self._product(values, create_graph=True)
        inputs = [value for value in values.values() if value.requires_grad]
        self.derivatives: dict[str, Tensor | None] = dict.fromkeys(values)
        if start.requires_grad:
            found = torch.autograd.grad(start, inputs, allow_unused=True)
            self.derivatives.update(zip([n for n, v in values.items() if v.requires_grad], found, strict=True))

    def is_wrong(self, names: list[str], distance: float) -> bool:
        found = [(self.derivatives[name], self.directions[name]) for name in names]
        derivative = sum(((d * v).sum().item() for d, v in found if d is not None), 0.0)
        near, far = (self._slope(names, factor * distance, self._product) for factor in (1, 2))
        size = max(abs(derivative), abs(near), abs(far))
        if size == 0 or abs(near - far) >= AGREEING * size or abs(derivative - near) <= TOLERATED * size:
            return False
        # At a kink, such as that of a ReLU of exactly 0, central differences agree with each other and mean nothing.
        ahead, behind = self._one_sided(names, distance, self._product)
        return abs(ahead - behind) < TOLERATED * max(abs(ahead), abs(behind))

    def gradient_is_slope(self, distance: float) -> bool:
        """Whether the gradient of the loss agrees with finite differences of the loss."""
        gradients = self._gradients(self.values)
        along = {name: (g * self.directions[name]).sum().real.item() for name, g in gradients.items()}
        for module in {name.rpartition(".")[0] for name in self.adapted}:
            names = _of(module, self.adapted)
            found, slope = sum(along[name] for name in names), self._slope(names, distance, self._value)
            if abs(found - slope) > TOLERATED * max(abs(found), abs(slope)):
                return False
        return True

    def constant_gradients(self) -> list[str]:
        """The parameters whose gradient has no graph, if the gradients of others have one."""
        found = {n: g for n, g in self._gradients(self.values, create_graph=True).items() if bool(g.any())}
        constant = [name for name, gradient in found.items() if not gradient.requires_grad]
        return constant if len(constant) < len(found) else []

    def _slope(self, names: list[str], distance: float, function: Callable[[dict[str, Tensor]], Tensor]) -> float:
        return sum(self._one_sided(names, distance, function)) / 2

    def _one_sided(
        self, names: list[str], distance: float, function: Callable[[dict[str, Tensor]], Tensor]
    ) -> tuple[float, float]:
        """The slopes ahead of the parameters and behind them."""
        count = sum(self.values[name].numel() for name in names)
        square = sum(self.values[name].detach().abs().square().sum().item() for name in names)
        step = distance * max((square / count) ** 0.5, 1e-3)
        ends = []
        for sign in (1, 0, -1):
            there = {
                name: (v.detach() + sign * step * self.directions[name] if name in names else v.detach())
                for name, v in self.values.items()
            }
            ends.append(function({n: v.requires_grad_(n in self.weights) for n, v in there.items()}).detach().item())
        return (ends[0] - ends[1]) / step, (ends[1] - ends[2]) / step

    def _value(self, values: dict[str, Tensor]) -> Tensor:
        with replayed(), torch.enable_grad():
            return self.loss(values)

    def _product(self, values: dict[str, Tensor], create_graph: bool = False) -> Tensor:
        gradients = self._gradients(values, create_graph)
        return torch.stack([(g * self.weights[name]).sum().real for name, g in gradients.items()]).sum()

    def _gradients(self, values: dict[str, Tensor], create_graph: bool = False) -> Mapping[str, Tensor]:
        with replayed(), torch.enable_grad():
            value = self.loss(values)
            inputs = [values[name] for name in self.adapted]
            found = torch.autograd.grad(value, inputs, create_graph=create_graph, materialize_grads=True)
        return dict(zip(self.adapted, found, strict=True))


def _of(module: str, names: list[str]) -> list[str]:
    return [name for name in names if name.rpartition(".")[0] == module]


def _random_like(value: Tensor, numbers: torch.Generator) -> Tensor:
    dtype = value.dtype if value.is_floating_point() or value.is_complex() else torch.float32
    return torch.randn(value.shape, generator=numbers, dtype=dtype).to(value.device)
