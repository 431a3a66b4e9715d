"""A case: an operation, and tensors for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

Draw = Callable[[], Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """An operation.

    Args:
        name: as PyTorch's documentation has it.
        function: of floating-point tensors, which are differentiated, and of integers.
        inputs: a shape stands for normal numbers, a function draws them.
        variant: tells cases of one operation apart.
    """

    name: str
    function: Callable[..., Tensor]
    inputs: tuple[Shape | Draw, ...]
    variant: str = ""

    def draw(self) -> list[Tensor]:
        return [torch.randn(how) if isinstance(how, tuple) else how() for how in self.inputs]

    def __str__(self) -> str:
        return f"{self.name}-{self.variant}" if self.variant else self.name


def case(
    name: str,
    function: Callable[..., Tensor],
    *inputs: Shape | Draw,
    variant: str = "",
) -> Case:
    return Case(name, function, inputs, variant)


def layer(
    name: str, module: nn.Module, *inputs: Shape | Draw, call: Callable[..., Tensor] | None = None, **claims: str
) -> Case:
    """A module's parameters are inputs too, so that they differ between tasks."""
    names = [n for n, _ in module.named_parameters()]
    module = module.double()

    def function(*tensors: Tensor) -> Tensor:
        params = dict(zip(names, tensors, strict=False))
        if call is None:
            return functional_call(module, params, tensors[len(names) :])
        return functional_call(
            _Called(module, call), {f"module.{n}": v for n, v in params.items()}, tensors[len(names) :]
        )

    drawn = [_scaled(value.shape) for value in module.parameters()]
    return case(name, function, *drawn, *inputs, **claims)


class _Called(nn.Module):
    def __init__(self, module: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(self.module, *inputs)


def _scaled(shape: torch.Size) -> Draw:
    return lambda: 0.1 + 0.6 * torch.randn(shape)


def between(low: float, high: float, *shape: int) -> Draw:
    return lambda: low + (high - low) * torch.rand(shape)


def whole(high: int, *shape: int) -> Draw:
    return lambda: torch.randint(high, shape)


def spread(*shape: int) -> Draw:
    """Numbers that are far from each other and from 0, so that maxima are unique."""

    def draw() -> Tensor:
        count = torch.Size(shape).numel()
        return (torch.randperm(count) + 0.5 - count // 2 + 0.2 * torch.rand(count)).view(shape) / 3

    return draw


def positive_definite(size: int) -> Draw:
    def draw() -> Tensor:
        root = torch.randn(size, size)
        return root @ root.T + torch.eye(size)

    return draw
