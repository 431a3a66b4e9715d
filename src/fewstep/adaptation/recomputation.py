"""Recomputation in the backward pass: its context, a check that nothing changed, and recomputed saved tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from fewstep.adaptation.random_numbers import random_state, recorded, replayed
from fewstep.adaptation.rules import Params
from fewstep.tasks import trees


class UnchangedCheck:
    """A check that what recomputed code reads has not changed; otherwise the result would differ.

    Args:
        state: returns what is compared, such as modes and plain attributes.
        holders: modules or other objects, whose tensors must be neither modified nor replaced.
        tensors: further tensors that must not be modified.
    """

    def __init__(
        self,
        state: Callable[[], object] = lambda: None,
        holders: Sequence[object] = (),
        tensors: Sequence[Tensor] = (),
    ) -> None:
        self._state, self._holders, self._before = state, holders, state()
        self._held = [(tensor, tensor._version) for tensor in (*_held_by(holders), *tensors)]
        self._count = len(self._held) - len(tensors)

    @classmethod
    def of(cls, loss: object, *others: object) -> UnchangedCheck:
        """A check of what a loss and further objects read; of a plain function nothing is known or checked."""
        return cls(getattr(loss, "state", lambda: None), [*getattr(loss, "holders", ()), *others])

    def check(self) -> None:
        """Raise ``RuntimeError`` if something changed."""
        if self._state() != self._before:
            changed = "a mode or an attribute of the model or the loss"
        elif self._exchanged() or any(tensor._version != version for tensor, version in self._held):
            changed = "a tensor of the model, the loss or the rule"
        else:
            return
        raise RuntimeError(
            f"The adjoint evaluates the model again in the backward pass, but {changed} has changed since the "
            "meta-loss was computed. Call backward() before you change anything, or use adjoint=Unrolled()."
        )

    def _exchanged(self) -> bool:
        now = _held_by(self._holders)
        return len(now) != self._count or any(a is not b for a, (b, _) in zip(now, self._held, strict=False))


def _held_by(holders: Sequence[object]) -> list[Tensor]:
    found: list[Tensor] = []
    for holder in holders:
        if isinstance(holder, nn.Module):
            found += [*holder.parameters(), *holder.buffers()]
        else:
            found += trees.tensors(list(getattr(holder, "__dict__", {}).values()))
    return [tensor for tensor in found if not tensor.is_inference()]


class RecomputedTensors(saved_tensors_hooks):
    """A context in which autograd saves nothing for the backward pass; saved tensors are recomputed when needed.

    Args:
        function: does the same computation again, and so saves the same tensors in the same order.
        arguments: returns the argument of ``function``, whose tensors are made to require a gradient.
    """

    def __init__(self, function: Callable[[Params], object], arguments: Callable[[], Params]) -> None:
        self._function, self._arguments, self._count = function, arguments, 0
        self._found: dict[int, Tensor] = {}
        super().__init__(self._pack, self._unpack)

    def _pack(self, tensor: Tensor) -> int:
        self._count += 1
        return self._count - 1

    def _unpack(self, place: int) -> Tensor:
        if place not in self._found:
            self._found = dict(enumerate(self._recomputed()))
        return self._found.pop(place)

    def _recomputed(self) -> list[Tensor]:
        found: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            found.append(tensor.detach())
            return found[-1]

        arguments = {name: tensor.detach().requires_grad_() for name, tensor in self._arguments().items()}
        with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
            self._function(arguments)
        if len(found) != self._count:
            raise RuntimeError(
                f"The rule's update is evaluated again in the backward pass, where it saved {len(found)} tensors "
                f"instead of {self._count}. Make it do the same computation every time, or use adjoint=Unrolled()."
            )
        return found


class RecomputationContext:
    """The random states and autocast settings at the time when it is made."""

    def __init__(self) -> None:
        self._random_state = None if recorded() else random_state()
        self._autocast = [(d, torch.get_autocast_dtype(d), torch.is_autocast_enabled(d)) for d in ("cpu", "cuda")]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """A context with these states and settings, which restores the current ones at the end."""
        now = [torch.is_autocast_enabled(device) for device, _, _ in self._autocast]
        with ExitStack() as stack:
            if self._random_state is not None:
                stack.enter_context(replayed(self._random_state))
            for (device, dtype, enabled), present in zip(self._autocast, now, strict=True):
                if enabled or present:
                    stack.enter_context(torch.autocast(device, dtype, enabled))
            yield
