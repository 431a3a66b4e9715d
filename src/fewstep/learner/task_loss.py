"""The loss of one task as a function of parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from fewstep.adaptation.checkpoints import recomputed_by
from fewstep.adaptation.operations import twice_differentiable
from fewstep.models.context import as_now, current_step, given, inner_step, recording
from fewstep.models.normalization import SupportNorm

LOSS_PREFIX = "loss/"
"""Marks the parameters of a learned loss in a dictionary that otherwise holds the model's; no module name has it."""


class TaskLoss:
    """``loss(model, batch)`` as ``task_loss(params, batch)``, with ``params`` in place of the model's own.

    ``params`` may hold any of the model's parameters by name and, if ``learned``, those of the loss behind
    ``LOSS_PREFIX``.
    """

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor], learned: bool = False) -> None:
        self._pair = _ModelAndLoss(model, loss)
        self._names = {name: f"model.{name}" for name, _ in model.named_parameters()}
        if learned and isinstance(loss, nn.Module):
            self._names.update({LOSS_PREFIX + name: f"loss.{name}" for name, _ in loss.named_parameters()})
        self._refuse_scripts()
        self.holds_support_norm = any(isinstance(module, SupportNorm) for module in self._pair.modules())

    def __call__(self, params: dict[str, Tensor], batch: Any) -> Tensor:
        named = {self._names[name]: value for name, value in params.items() if name in self._names}
        if torch._C._are_functorch_transforms_active():  # these refuse checkpoints
            with twice_differentiable():
                return functional_call(self._pair, named, (self._pair.of_batch, batch))
        with twice_differentiable(), recomputed_by(as_now(partial(self._again, named))):
            return functional_call(self._pair, named, (self._pair.of_batch, batch))

    def _refuse_scripts(self) -> None:
        for name, module in self._pair.named_modules():
            if isinstance(module, torch.jit.ScriptModule) and any(True for _ in module.parameters()):
                raise ValueError(
                    f"{name} is a torch.jit.ScriptModule. Its parameters cannot be replaced by a task's own. "
                    "Pass the module as it was before torch.jit.script."
                )

    def _again(self, named: dict[str, Tensor], function: Callable[..., None], *args: Any) -> None:
        """A part of this loss once more, with the same parameters."""
        with twice_differentiable():
            functional_call(self._pair, named, (function, *args))


class MinibatchLoss:
    """The loss of each inner step on its own share of the support set.

    Step k sees the examples k, k + m, k + 2m, … of n, where m = ⌈n / size⌉ shares make up the set; after m steps the
    first comes again. The classes of an episode lie one after the other, so that each share has them all.

    Args:
        loss: of a batch.
        size: at most this many examples at once.
    """

    def __init__(self, loss: TaskLoss, size: int) -> None:
        self.loss, self.size = loss, size

    def __call__(self, params: dict[str, Tensor], batch: Any) -> Tensor:
        step = current_step() or 0

        def share(examples: Tensor) -> Tensor:
            shares = math.ceil(len(examples) / self.size)
            return examples[step % shares :: shares]

        return self.loss(params, tree_map(share, batch))


class QueryLoss:
    """The loss of one task after adaptation, as its layers should see it: at their step, beside the support set.

    Args:
        loss: of a batch.
        path: [φ_0, …, φ_K]; the loss is asked for at one of these.
        support: what the task was adapted to.
    """

    def __init__(self, loss: TaskLoss, path: list[dict[str, Tensor]], support: Any) -> None:
        self.loss, self.path, self.support = loss, path, support

    def __call__(self, params: dict[str, Tensor], batch: Any) -> Tensor:
        step = next((k for k, passed in enumerate(self.path) if passed is params), len(self.path) - 1)
        with inner_step(max(step - 1, 0)):
            if not self.loss.holds_support_norm:
                return self.loss(params, batch)
            with recording() as statistics:
                self.loss(params, self.support)
            with given(statistics):
                return self.loss(params, batch)


class _ModelAndLoss(nn.Module):
    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a function: ``functional_call`` has the parameters in place meanwhile."""
        return function(*args)

    def of_batch(self, batch: Any) -> Tensor:
        return self.loss(self.model, batch)
