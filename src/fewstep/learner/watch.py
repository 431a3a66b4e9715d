"""Observation of a model during its first evaluation: which module calls which operation with which tensors."""

from __future__ import annotations

import functools
import random
import sys
import types
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
from torch.utils.checkpoint import CheckpointFunction

from fewstep.adaptation.random_numbers import random_state
from fewstep.models.stand_in import origin
from fewstep.pytorch import mixing_modes

_watching: ContextVar[Watch | None] = ContextVar("watching", default=None)


class Watch(TorchFunctionMode):
    """A context that records unsupported operations of a model, in forward and backward passes, with their modules.

    Args:
        model: the learner's model.
        original: the parameters of the user's module. A model that computes with them, or with those of ``model``,
            holds a reference that stand-ins do not replace.
        inputs: tensors that must not be written to.
    """

    def __init__(self, model: nn.Module, original: ParameterNames, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.model = model
        self.names = {id(module): f"model.{name}" if name else "model" for name, module in model.named_modules()}
        self.parameter_names, self.inputs = (ParameterNames(model), original), list(inputs)
        self.versions = [tensor._version for tensor in self.inputs]
        self.calling: list[str] = []
        self.in_backward = False
        self.made: list[Tensor] = []
        """Leaves that require a gradient and were made inside, such as inputs that a loss differentiates."""
        self.left_over: list[str] = []
        """Attributes that hold tensors of an earlier forward pass; they are set to NaN."""
        self.reenters = False
        """Whether a module was called in a backward pass."""
        self.buffers: list[tuple[nn.Module, dict[str, tuple[Tensor, int, Tensor]]]] = []
        self.followed: list[nn.Module] = []
        """The stand-ins whose calls are recorded."""
        self.leak: tuple[str, str] | None = None
        """A module that computes with an original parameter, and the name of the parameter."""
        self.write: tuple[str, str] | None = None
        """A module that writes to its inputs, and the operation."""
        self.reentrant: str | None = None
        """A module that is called inside a checkpoint with ``use_reentrant=True``."""
        self.mixes_modes = False
        """Whether forward- and reverse-mode derivatives are nested, as by ``torch.func.hessian``."""
        self.operations: dict[str, str] = {}
        """The module in which each operation was last called."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.requires_grad}
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.requires_grad and found.is_leaf and id(found) not in given:
            self.made.append(found)
        where = self.calling[-1] if self.calling else "the loss"
        name = getattr(func, "__name__", str(func))
        self.operations[name] = where
        self.mixes_modes = self.mixes_modes or mixing_modes()
        if self.reentrant is None and not torch.is_grad_enabled() and _in_reentrant_checkpoint():
            self.reentrant = where
        if self.leak is None and name != "__get__" and (self.calling or self.in_backward):
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, nn.Parameter):
                    leaked = self.parameter_names[0].name(leaf) or self.parameter_names[1].name(leaf)
                    self.leak = self.leak or (None if leaked is None else (where, leaked))
        if self.write is None and any(
            tensor._version != version for tensor, version in zip(self.inputs, self.versions, strict=True)
        ):
            self.write = where, name
        return found

    def follow(self, model: nn.Module) -> None:
        """Record the calls of each module of a stand-in, and copy its buffers."""
        for module in model.modules():
            name = self.names.get(id(origin(module)))
            for key, value in module.__dict__.items():
                if getattr(value, "left_over", False):
                    module.__dict__[key] = torch.full_like(value, torch.nan)
                    self.left_over.append(f"{name}.{key}")
            if name is not None and not hasattr(module.forward, "followed"):
                self.followed.append(module)
                module.__dict__["forward"] = self._followed(name, module.forward)
                if module._buffers:
                    module._buffers = {n: b if b is None else b.clone() for n, b in module._buffers.items()}
        self.buffers.append((model, {n: (b, b._version, b.clone()) for n, b in model.named_buffers()}))

    def check_buffers(self) -> None:
        """Raise if a model wrote to a buffer in forward."""
        for model, before in self.buffers:
            known = {name.replace("_orig_mod.", "") for name, _ in self.model.named_parameters()}
            made = [name for name, _ in model.named_parameters() if name not in known]
            if made:
                raise ValueError(
                    f"The model makes its parameter {made[0]} in forward, after the learner was made, so it would "
                    "not be learned. Call the model once on an example before you pass it to a learner."
                )
            for name, buffer in model.named_buffers():
                old, version, value = before.get(name, (None, 0, buffer))
                if buffer is not old or buffer._version != version or not torch.equal(buffer, value):
                    raise ValueError(
                        f"The model writes to its buffer {name} in forward, which would leak from one task into the "
                        "next. Return new values instead, or make it a parameter."
                    )
        self.buffers.clear()

    def release(self) -> None:
        """Take the recording ``forward``, which refers to them, from the stand-ins; they are not called again."""
        for module in self.followed:
            module.__dict__.pop("forward", None)
        self.followed.clear()
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
        """A context in which losses report their stand-ins to this object."""
        token = _watching.set(self)
        try:
            with self:
                yield self
        finally:
            _watching.reset(token)


def watching() -> Watch | None:
    """The active ``Watch``, or ``None``."""
    return _watching.get()


def _in_reentrant_checkpoint() -> bool:
    """Whether a checkpoint with ``use_reentrant=True`` is being evaluated."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code is _REENTRANT:
            return True
        frame = frame.f_back
    return False


_REENTRANT = CheckpointFunction.forward.__code__


class ParameterNames:
    """The names of modules' parameters, looked up by the parameter; holds weak references only.

    Args:
        *modules: the modules.
    """

    def __init__(self, *modules: nn.Module) -> None:
        self._found = {
            id(value): (name, weakref.ref(value)) for module in modules for name, value in module.named_parameters()
        }

    def name(self, parameter: Tensor) -> str | None:
        """The name of a parameter of the modules; ``None`` for any other tensor."""
        name, reference = self._found.get(id(parameter), ("", None))
        return name if reference is not None and reference() is parameter else None

    def __reduce__(self) -> tuple[Any, ...]:
        return ParameterNames, ()  # empty in another process and in a copy


class Randomness:
    """A context that detects whether random numbers are drawn, from PyTorch's generators or from others.

    Args:
        *modules: modules whose attributes are searched for generators, in addition to the global ones of Python and
            numpy.
    """

    def __init__(self, *modules: Any) -> None:
        parts = [part for module in modules if isinstance(module, nn.Module) for part in module.modules()]
        held = [value for part in parts for attribute in vars(part).values() for value in _reached(attribute)]
        held += [value for part in parts for value in _reached(type(part).forward)]
        held += [value for loss in modules for value in _reached(loss)]
        self._generators = list({id(value): value for value in held if isinstance(value, _GENERATORS)}.values())

    def __enter__(self) -> Randomness:
        self._before, self._others = random_state(), self._other_states()
        return self

    def __exit__(self, *error: object) -> None:
        after = random_state()
        self.from_torch = not all(torch.equal(state, after[device]) for device, state in self._before.items())
        self.from_others = repr(self._others) != repr(self._other_states())

    def restore(self) -> None:
        """Restore the states of all generators except PyTorch's."""
        for setter, state in zip(self._setters(), self._others, strict=True):
            setter(state)

    def _other_states(self) -> list[Any]:
        own = [
            g.getstate() if isinstance(g, random.Random)
            else g.bit_generator.state if isinstance(g, np.random.Generator)
            else g.get_state().tolist() if isinstance(g, torch.Generator)
            else _hashed(g.get_state())
            for g in self._generators
        ]  # fmt: skip
        return [random.getstate(), _hashed(np.random.get_state()), *own]

    def _setters(self) -> list[Callable[[Any], Any]]:
        def setter(g: Any) -> Callable[[Any], Any]:
            if isinstance(g, random.Random):
                return g.setstate
            if isinstance(g, np.random.Generator):
                return lambda state: setattr(g.bit_generator, "state", state)
            if isinstance(g, torch.Generator):
                return lambda state: g.set_state(torch.tensor(state, dtype=torch.uint8))
            return lambda state: g.set_state((state[0], np.array(state[1], dtype=np.uint32), *state[2:]))

        return [random.setstate, setter(np.random), *map(setter, self._generators)]


_GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)


def _reached(value: Any) -> list[Any]:
    """An object, and for a function the objects that its closure and global names refer to."""
    found = [value]
    code = getattr(value, "__code__", None)
    if code is not None:
        cells = [cell for cell in value.__closure__ or () if cell != types.CellType()]
        found += [cell.cell_contents for cell in cells]
        found += [value.__globals__[name] for name in code.co_names if name in value.__globals__]
    return found


def _hashed(state: Any) -> tuple[Any, ...]:
    """The state of numpy's legacy generator as plain numbers, so that all of it is compared."""
    return state[0], state[1].tolist(), *state[2:]
