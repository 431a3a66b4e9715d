"""What a model does while it is evaluated for the first time: which module calls which operation on what."""

from __future__ import annotations

import functools
import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from fewstep.adaptation.random_numbers import random_state
from fewstep.models.stand_in import origin

_watching: ContextVar[Watch | None] = ContextVar("watching", default=None)


class Watch(TorchFunctionMode):
    """Inside, and in the backward passes taken there, notes what may not happen, and where.

    Args:
        model: the learner's model.
        original: parameters that no module may compute with, as little as with those of ``model``: stand-ins have other
            tensors in their place.
        inputs: tensors that may not be written to.
    """

    def __init__(self, model: nn.Module, original: Own, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.names = {id(module): f"model.{name}" if name else "model" for name, module in model.named_modules()}
        self.own, self.inputs = (Own(model), original), list(inputs)
        self.versions = [tensor._version for tensor in self.inputs]
        self.calling: list[str] = []
        self.in_backward = False
        self.reenters = False
        """Whether a module was called in a backward pass."""
        self.buffers: list[tuple[nn.Module, dict[str, tuple[Tensor, int, Tensor]]]] = []
        self.leak: tuple[str, str] | None = None
        """A module that computes with a parameter of the learner's own, and the parameter."""
        self.write: tuple[str, str] | None = None
        """A module that writes to its inputs, and the operation."""
        self.operations: dict[str, str] = {}
        """The module in which each operation was last called."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        where = self.calling[-1] if self.calling else "the loss"
        name = getattr(func, "__name__", str(func))
        self.operations[name] = where
        if self.leak is None and name != "__get__" and (self.calling or self.in_backward):
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, nn.Parameter):
                    for own in self.own:
                        leaked = own.name(leaf)
                        self.leak = self.leak if leaked is None else (where, leaked)
        if self.write is None and any(
            tensor._version != version for tensor, version in zip(self.inputs, self.versions, strict=True)
        ):
            self.write = where, name
        return found

    def follow(self, model: nn.Module) -> None:
        """Notes when each module of a stand-in is called, and gives it buffers of its own."""
        for module in model.modules():
            name = self.names.get(id(origin(module)))
            if name is not None and not hasattr(module.forward, "followed"):
                module.__dict__["forward"] = self._followed(name, module.forward)
                if module._buffers:
                    module._buffers = {n: b if b is None else b.clone() for n, b in module._buffers.items()}
        self.buffers.append((model, {n: (b, b._version, b.clone()) for n, b in model.named_buffers()}))

    def check_buffers(self) -> None:
        """Raises if a model wrote to a buffer in forward."""
        for model, before in self.buffers:
            for name, buffer in model.named_buffers():
                old, version, value = before.get(name, (None, 0, buffer))
                if buffer is not old or buffer._version != version or not torch.equal(buffer, value):
                    raise ValueError(
                        f"The model writes to its buffer {name} in forward; what one task writes would leak into the "
                        "next. Return new values instead, or make it a parameter."
                    )
        self.buffers.clear()

    def _followed(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def followed(*args: Any, **kwargs: Any) -> Any:
            self.calling.append(name)
            self.reenters = self.reenters or self.in_backward
            try:
                return forward(*args, **kwargs)
            finally:
                self.calling.pop()

        followed.followed = True  # type: ignore[attr-defined]
        return followed

    @contextmanager
    def following(self) -> Iterator[Watch]:
        """Inside, losses tell of the stand-ins that they make."""
        token = _watching.set(self)
        try:
            with self:
                yield self
        finally:
            _watching.reset(token)


def watching() -> Watch | None:
    """The watch that is being kept."""
    return _watching.get()


class Own:
    """The parameters of modules, which are not kept alive by it.

    Args:
        modules: with them, what to call each.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._found = {
            id(value): (name, weakref.ref(value)) for module in modules for name, value in module.named_parameters()
        }

    def name(self, parameter: Tensor) -> str | None:
        """The name of a parameter, if it is one of these."""
        name, reference = self._found.get(id(parameter), ("", None))
        return name if reference is not None and reference() is parameter else None

    def __reduce__(self) -> tuple[Any, ...]:
        return Own, ()  # in another process, and for a copy, there are none of them


class Randomness:
    """Inside, sees whether random numbers are drawn: from PyTorch's generators, or from Python's or numpy's."""

    def __enter__(self) -> Randomness:
        self._before, self._others = random_state(), _other_states()
        return self

    def __exit__(self, *error: object) -> None:
        after = random_state()
        self.of_torch = not all(torch.equal(state, after[device]) for device, state in self._before.items())
        self.of_others = self._others != _other_states()


def _other_states() -> tuple[Any, ...]:
    keys: Any = np.random.get_state()
    return random.getstate(), keys[1].tobytes(), *keys[2:]
