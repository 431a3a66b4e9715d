"""Reuse of outputs that adaptation does not change: ANIL's body, a pretrained encoder, CAVIA's first blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fewstep.models import BatchNorm, PerStepNorm
from fewstep.models.context import Statistics, current_statistics
from fewstep.models.stand_in import rebound
from fewstep.pytorch import transforms

_remembered: ContextVar[_Memories | None] = ContextVar("remembered", default=None)


class UnadaptedModules:
    """The modules of a model that have parameters, none of which is adapted.

    Args:
        model: the model.
        adapts: names of the adapted parameters.
    """

    def __init__(self, model: nn.Module, adapts: Collection[str]) -> None:
        self._modules = []
        for path, module in model.named_modules():
            names = [f"{path}.{name}" if path else name for name, _ in module.named_parameters()]
            depends_on_step = any(isinstance(part, PerStepNorm) for part in module.modules())
            if names and not depends_on_step and not any(name in adapts for name in names):
                self._modules.append(module)

    def reusing(self) -> AbstractContextManager[None]:
        """A context in which a module called again with the same tensors and parameters returns its earlier output.

        A module that is called with different tensors is evaluated every time from then on.
        """
        return self._remembering(checked=False)

    def disable(self) -> None:
        """From now on, evaluate all modules at every step."""
        self._modules = []

    def comparing(self) -> AbstractContextManager[None]:
        """A context in which outputs are compared instead of reused; modules that differ are not reused later."""
        return self._remembering(checked=True)

    @contextmanager
    def _remembering(self, checked: bool) -> Iterator[None]:
        memories = _Memories(self._modules, checked)
        token = _remembered.set(memories)
        try:
            yield
        finally:
            _remembered.reset(token)
            memories.release()
            if memories.useless:
                self._modules = [module for module in self._modules if id(module) not in memories.useless]


def known_stand_ins(tensors: Mapping[int, Tensor]) -> dict[int, Any]:
    """Stand-ins of an earlier inner step that compute with the same tensors, by ``id`` of the original module."""
    memories = _remembered.get()
    return {} if memories is None else memories.known(tensors)


def remember(stand_ins: Mapping[int, Any], tensors: Mapping[int, Tensor]) -> None:
    """Make the stand-ins of unadapted modules remember their outputs."""
    memories = _remembered.get()
    if memories is not None:
        memories.add(stand_ins, tensors)


class _Memories:
    """The remembered calls of one task's inner loop."""

    def __init__(self, modules: list[nn.Module], checked: bool) -> None:
        self.modules, self.checked = modules, checked
        self.useless: set[int] = set()
        self._found: dict[int, _Memory] = {}
        self._all: list[_Memory] = []

    def known(self, tensors: Mapping[int, Tensor]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for key, memory in self._found.items():
            if key not in self.useless and all(tensors.get(i) is value for i, value in memory.tensors.items()):
                found.update(memory.members)
        return found

    def add(self, stand_ins: Mapping[int, Any], tensors: Mapping[int, Tensor]) -> None:
        for module in self.modules:
            key, own = id(module), stand_ins.get(id(module))
            memory = self._found.get(key)
            if own is None or key in self.useless or (memory is not None and memory.module is own):
                continue
            members = {id(part): stand_ins[id(part)] for part in module.modules()}
            outside = {i: value for i, value in stand_ins.items() if i not in members}
            back = {id(value): value for value in outside.values()}
            if any(rebound(part.__dict__, back) is not part.__dict__ for part in members.values()):
                self.useless.add(key)  # a hook or attribute refers to something that may be adapted
                continue
            mine = {id(value): tensors[id(value)] for value in module.parameters() if id(value) in tensors}
            norms: list[nn.Module] = [part for part in module.modules() if isinstance(part, BatchNorm)]
            self._found[key] = _Memory(own, members, mine, norms, self, key)
            self._all.append(self._found[key])

    def release(self) -> None:
        """Give the stand-ins their own ``forward`` back, unless a backward pass may call it again."""
        for memory in self._all:
            memory.release()
        self._all.clear()
        self._found.clear()


class _Memory:
    """The ``forward`` of a stand-in that remembers its last calls.

    Three kinds of calls are remembered apart: those that record statistics, those that are given the support set's
    statistics, and all others.
    """

    def __init__(
        self,
        module: nn.Module,
        members: dict[int, Any],
        tensors: dict[int, Tensor],
        norms: list[nn.Module],
        memories: _Memories,
        key: int,
    ) -> None:
        self.module, self.members, self.tensors, self.norms = module, members, tensors, norms
        self._memories, self._key, self._forward = memories, key, module.forward
        self._own = module.__dict__.get("forward")
        self._calls: dict[tuple[bool, bool], _Call] = {}
        module.__dict__["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        useless = self._memories.useless
        if self._key in useless:
            return self._forward(*args, **kwargs)
        recorded, given = current_statistics()
        statistics = [value for norm in self.norms for value in (given or {}).get(norm, ())]
        arguments = [torch.is_grad_enabled(), transforms(), *statistics, *tree_leaves((args, kwargs)), *kwargs]
        kind = recorded is not None, given is not None
        before = self._calls.get(kind)
        if before is None:
            output = self._forward(*args, **kwargs)
            noted = {norm: (recorded or {})[norm] for norm in self.norms if norm in (recorded or {})}
            self._calls[kind] = _Call(arguments, self._attributes(), output, noted)
            return output
        if before.repeated_by(arguments, self._attributes()):
            if not self._memories.checked:
                if recorded is not None:
                    recorded.update(before.recorded)
                return before.output
            again = self._forward(*args, **kwargs)
            if not _equal(again, before.output):
                useless.add(self._key)
            return again
        useless.add(self._key)
        self._calls.clear()
        return self._forward(*args, **kwargs)

    def release(self) -> None:
        """Give the module its own ``forward`` back, so that it and this object do not refer to each other."""
        if self.module.__dict__.get("forward") is self:
            del self.module.__dict__["forward"]
            if self._own is not None:
                self.module.__dict__["forward"] = self._own

    def _attributes(self) -> list[Any]:
        """What the module may read in addition to its arguments: attributes, buffers and hooks, also of sub-modules."""
        held: list[Any] = []
        for part in self.members.values():
            attributes = part.__dict__
            for name, value in attributes.items():
                if name in ("_parameters", "_buffers", "_modules"):
                    held.extend(value.values())
                elif name != "forward":
                    held.append(value)
        return held


class _Call:
    """The arguments, the module's attributes, the output and the recorded statistics of a call."""

    def __init__(self, arguments: list[Any], attributes: list[Any], output: Any, recorded: Statistics) -> None:
        self.arguments, self.attributes, self.output, self.recorded = arguments, attributes, output, recorded
        self._versions = _versions((arguments, attributes, output))

    def repeated_by(self, arguments: list[Any], attributes: list[Any]) -> bool:
        """Whether another call has the same arguments and attributes, and no tensor was written to in between."""
        same = _same(arguments, self.arguments) and _same(attributes, self.attributes)
        return same and _versions((arguments, attributes, self.output)) == self._versions


def _same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(
        x is y or (isinstance(x, (bool, int, float, str)) and type(x) is type(y) and x == y)
        for x, y in zip(a, b, strict=True)
    )


def _equal(a: Any, b: Any) -> bool:
    ours, theirs = tree_leaves(a), tree_leaves(b)
    return len(ours) == len(theirs) and all(
        torch.allclose(x, y, rtol=1e-5, equal_nan=True) if isinstance(x, Tensor) else True
        for x, y in zip(ours, theirs, strict=True)
    )


def _versions(tree: Any) -> list[int]:
    """The version counters of all tensors, which in-place writes increase."""
    return [leaf._version for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
