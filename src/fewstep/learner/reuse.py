"""What the inner loop does not move is worked out once: ANIL's body, a pretrained encoder, CAVIA's first blocks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.utils._pytree import tree_leaves

from fewstep.models import PerStepNorm


class Unmoved:
    """The modules of a model none of whose parameters the inner loop moves.

    Args:
        model: the model.
        adapts: names of the parameters that the inner loop moves.
    """

    def __init__(self, model: nn.Module, adapts: Collection[str]) -> None:
        self._modules = []
        for path, module in model.named_modules():
            names = [f"{path}.{name}" if path else name for name, _ in module.named_parameters()]
            depends_on_step = any(isinstance(part, PerStepNorm) for part in module.modules())
            if names and not depends_on_step and not any(name in adapts for name in names):
                self._modules.append(module)

    @contextmanager
    def worked_out_once(self) -> Iterator[None]:
        """Inside, such a module that is called again with the same tensors and parameters returns what it gave before.

        A module that is called with other tensors each time is left alone from then on.
        """
        memories = [_Memory(module) for module in self._modules]
        for memory in memories:
            memory.module.forward = memory
        try:
            yield
        finally:
            for memory in memories:
                del memory.module.__dict__["forward"]
            self._modules = [memory.module for memory in memories if not memory.useless]


class _Memory:
    """A module's forward that remembers its last call."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.forward = module, module.forward
        self.useless = False
        self._inputs: Sequence[Any] = ()
        self._output: Any = None
        self._versions: list[int] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.useless:
            return self.forward(*args, **kwargs)
        levels = torch.is_grad_enabled(), len(retrieve_all_functorch_interpreters())
        inputs = [*levels, *args, *kwargs.items(), *self.module.parameters()]
        if self._inputs:
            if _same(inputs, self._inputs) and _versions((inputs, self._output)) == self._versions:
                return self._output
            self.useless, self._inputs, self._output = True, (), None
            return self.forward(*args, **kwargs)
        output = self.forward(*args, **kwargs)
        self._inputs, self._output, self._versions = inputs, output, _versions((inputs, output))
        return output


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _versions(tree: Any) -> list[int]:
    """How often each tensor was written to."""
    return [leaf._version for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
