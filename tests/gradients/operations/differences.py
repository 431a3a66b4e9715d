"""The product of an operation's Hessian with a vector: by finite differences, and as the adjoints compute it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from gradients.operations.case import Case
from torch import Tensor
from torch.autograd import forward_ad

Vectors = Sequence[Tensor]
SEED = 5
"""The seed of the operation's own random numbers, set before every call."""


class Problem:
    """A smooth scalar function of an operation's output, at a point of each task, with a direction.

    ``expected`` is by finite differences of PyTorch's gradient in float64.
    """

    def __init__(self, case: Case, inside: Callable[[], object], tasks: int = 2) -> None:
        self.case, self.inside = case, inside
        self.points = [case.draw() for _ in range(tasks)]
        self.places = [i for i, x in enumerate(self.points[0]) if x.is_floating_point()]
        self.directions = [[torch.randn_like(point[i]) for i in self.places] for point in self.points]

    def value(self, *tensors: Tensor) -> Tensor:
        with self.inside():
            y = self.case.function(*tensors)
        weights = torch.arange(1, y.numel() + 1, dtype=torch.float64).mul(0.7).cos().view(y.shape)
        return (weights.to(y.dtype) * y.sin()).sum()

    def gradient(self, point: Vectors, **options: bool) -> Sequence[Tensor]:
        torch.manual_seed(SEED)
        moved = [point[i].detach().requires_grad_() for i in self.places]
        return torch.autograd.grad(
            self.value(*self.put(point, moved)), moved, allow_unused=True, materialize_grads=True
        )

    def put(self, point: Vectors, moved: Vectors) -> list[Tensor]:
        merged = list(point)
        for i, x in zip(self.places, moved, strict=True):
            merged[i] = x
        return merged

    def expected(self, epsilon: float = 1e-6) -> list[Tensor]:
        columns = []
        for point, direction in zip(self.points, self.directions, strict=True):
            steps = [
                self.put(point, [point[i] + sign * epsilon * v for i, v in zip(self.places, direction, strict=True)])
                for sign in (1, -1)
            ]
            above, below = (self.gradient(step) for step in steps)
            columns.append([(a - b) / (2 * epsilon) for a, b in zip(above, below, strict=True)])
        return [torch.stack(parts) for parts in zip(*columns, strict=True)]

    # Ways: each returns the products of all tasks, stacked

    def loop(self) -> list[Tensor]:
        """Double backward of one task after the other."""
        return self._each(self._double_backward)

    def dual(self) -> list[Tensor]:
        """Forward-mode derivative of the gradient, with plain autograd."""
        return self._each(self._dual)

    def jvp(self) -> list[Tensor]:
        """Forward-mode derivative of the gradient, with torch.func."""
        return self._each(self._jvp)

    def vmap(self) -> list[Tensor]:
        """Double backward through vmap(grad)."""
        torch.manual_seed(SEED)
        stacked = [torch.stack(parts) for parts in zip(*self.points, strict=True)]
        moved = [stacked[i].requires_grad_() for i in self.places]
        gradient = torch.vmap(torch.func.grad(self.value, argnums=tuple(self.places)), randomness="same")(*stacked)
        directions = [torch.stack(parts) for parts in zip(*self.directions, strict=True)]
        slope = sum((g * v).sum() for g, v in zip(gradient, directions, strict=True))
        return _gradient(slope, moved)

    def vmap_vjp(self) -> list[Tensor]:
        """The derivative of the gradient with torch.func, inside vmap."""
        return self._at_once(self._vjp)

    def vmap_jvp(self) -> list[Tensor]:
        return self._at_once(self._jvp)

    def vmap_gradient(self) -> list[Tensor]:
        """The first derivative under vmap minus that of the loop: zeros."""
        torch.manual_seed(SEED)
        stacked = [torch.stack(parts) for parts in zip(*self.points, strict=True)]
        moved = [stacked[i].requires_grad_() for i in self.places]
        together = _gradient(torch.vmap(self.value, randomness="same")(*stacked).sum(), moved)
        apart = zip(*(self.gradient(point) for point in self.points), strict=True)
        return [a - torch.stack(b) for a, b in zip(together, apart, strict=True)]

    def _each(self, product: Callable[[Vectors, Vectors], Vectors]) -> list[Tensor]:
        found = []
        for point, direction in zip(self.points, self.directions, strict=True):
            torch.manual_seed(SEED)
            found.append(product(point, direction))
        return [torch.stack(parts).detach() for parts in zip(*found, strict=True)]

    def _at_once(self, product: Callable[[Vectors, Vectors], Vectors]) -> list[Tensor]:
        torch.manual_seed(SEED)
        points = [torch.stack(parts) for parts in zip(*self.points, strict=True)]
        directions = [torch.stack(parts) for parts in zip(*self.directions, strict=True)]
        return list(torch.vmap(product, randomness="same")(points, directions))

    def _double_backward(self, point: Vectors, direction: Vectors) -> Vectors:
        moved = [point[i].detach().requires_grad_() for i in self.places]
        value = self.value(*self.put(point, moved))
        gradient = torch.autograd.grad(value, moved, create_graph=True, allow_unused=True, materialize_grads=True)
        return _gradient(sum((g * v).sum() for g, v in zip(gradient, direction, strict=True)), moved)

    def _dual(self, point: Vectors, direction: Vectors) -> Vectors:
        with forward_ad.dual_level():
            moved = [point[i].detach().requires_grad_() for i in self.places]
            moved = [forward_ad.make_dual(x, v) for x, v in zip(moved, direction, strict=True)]
            value = self.value(*self.put(point, moved))
            gradient = torch.autograd.grad(value, moved, create_graph=True, allow_unused=True, materialize_grads=True)
            tangents = [forward_ad.unpack_dual(g).tangent for g in gradient]
            return [torch.zeros_like(x) if t is None else t for x, t in zip(moved, tangents, strict=True)]

    def _gradient_at(self, point: Vectors) -> Callable[..., Vectors]:
        gradient = torch.func.grad(self.value, argnums=tuple(self.places))
        return lambda *moved: gradient(*self.put(point, moved))

    def _jvp(self, point: Vectors, direction: Vectors) -> Vectors:
        return torch.func.jvp(self._gradient_at(point), tuple(point[i] for i in self.places), tuple(direction))[1]

    def _vjp(self, point: Vectors, direction: Vectors) -> Vectors:
        return torch.func.vjp(self._gradient_at(point), *(point[i] for i in self.places))[1](tuple(direction))


def _gradient(value: Tensor, moved: Sequence[Tensor]) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(x) for x in moved]
    return list(torch.autograd.grad(value, moved, allow_unused=True, materialize_grads=True))
