"""The loss of one task as a function of parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fewstep.learner.reentry import evaluated
from fewstep.learner.reuse import known_stand_ins, remember
from fewstep.learner.watch import watching
from fewstep.models.context import current_step, evaluating, given, inner_step, recording
from fewstep.models.normalization import SupportNorm
from fewstep.models.stand_in import stand_in
from fewstep.tasks import Batch
from fewstep.tasks.trees import mapped, tensors

PLAIN = (bool, int, float, complex, str, type(None), torch.dtype, torch.device)
"""Attributes of these types are compared before a loss is recomputed."""

LOSS_PREFIX = "loss/"
"""Prefix of the names of a learned loss's parameters, beside those of the model; no module name contains it."""


class FunctionalLoss:
    """``loss(model, batch)`` as a function of ``(params, batch)``, which replace the parameters of the model.

    Args:
        model: the model, which is not modified.
        loss: ``loss(model, batch) -> scalar``.
        learned: whether ``params`` also holds the parameters of the loss, with the prefix ``LOSS_PREFIX``.
    """

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor], learned: bool = False) -> None:
        self.model, self.loss = model, loss
        self.reenters = False
        """Whether the model calls its modules again in backward passes; the first check sets it."""
        self._learned = loss if learned and isinstance(loss, nn.Module) else None
        self.refresh()
        self.holds_support_norm = any(isinstance(module, SupportNorm) for module in model.modules())

    @property
    def names(self) -> list[str]:
        """The names of the model's parameters."""
        return [name for name in self._places if not name.startswith(LOSS_PREFIX)]

    def refresh(self) -> None:
        """Find the modules and attributes of the parameters."""
        self._places = {name: (module, attribute) for name, module, attribute in _places(self.model)}
        if self._learned is not None:
            models = {id(value) for value in self.model.parameters()}
            for name, module, attribute in _places(self._learned):
                if id(module._parameters[attribute]) not in models:  # shared parameters belong to the model
                    self._places[LOSS_PREFIX + name] = module, attribute

    def __call__(self, params: Mapping[str, Tensor], batch: Any) -> Tensor:
        if not _is_plain(batch):
            batch = mapped(_itself, batch)  # a copy of the containers, since a loss may remove entries
        model, loss = self.stand_ins(params)
        watch = watching()
        if watch is not None:
            watch.follow(model)
        value: Tensor = evaluated(loss, model, batch, self.reenters or watch is not None)
        return value

    @property
    def holders(self) -> list[nn.Module]:
        """The modules whose tensors the loss reads in addition to the given parameters."""
        return [part for part in (self.model, self.loss) if isinstance(part, nn.Module)]

    def state(self) -> list[Any]:
        """The modes of all modules, and their attributes that are numbers, strings and the like."""
        modules = [module for part in self.holders for module in part.modules()]
        return [[value for value in vars(module).values() if type(value) in PLAIN] for module in modules]

    def stand_ins(self, params: Mapping[str, Tensor]) -> tuple[nn.Module, Any]:
        """The model and the loss with ``params`` in place of their own parameters (``models/stand_in.py``)."""
        tensors = {id(self._own(name)): value for name, value in params.items() if name in self._places}
        known = known_stand_ins(tensors)
        model = stand_in(self.model, tensors, _mode(), known)
        loss = stand_in(self.loss, tensors, _mode(), known) if isinstance(self.loss, nn.Module) else self.loss
        remember(known, tensors)
        return model, loss

    def _own(self, name: str) -> Tensor:
        module, attribute = self._places[name]
        found: Any = module._parameters[attribute]
        return found


def _is_plain(batch: Any) -> bool:
    if not isinstance(batch, Batch):
        return isinstance(batch, Tensor)
    return isinstance(batch.x, Tensor) and (batch.y is None or isinstance(batch.y, Tensor))


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def call(model: nn.Module, params: Mapping[str, Tensor], *args: Any) -> Any:
    """``model(*args)`` with the tensors of ``params`` in place of the parameters of these names."""
    tensors = {id(value): params[name] for name, value in model.named_parameters() if name in params}
    return stand_in(model, tensors, _mode())(*args)


def _mode() -> bool | None:
    """The mode of stand-ins: evaluation while learners are evaluated, otherwise that of the modules (``None``)."""
    return False if evaluating() else None


def _places(root: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """The name of each parameter, and its module and attribute."""
    for name, _ in root.named_parameters():
        path, _, attribute = name.rpartition(".")
        yield name, root.get_submodule(path), attribute


class MinibatchLoss:
    """The loss of each inner step on a different part of the support set.

    Of n examples, step k uses the examples k, k + m, k + 2m, …, where m = ⌈n / size⌉ is the number of parts; after m
    steps the first part is used again. Episodes are sorted by class, so each part contains all classes. Examples with
    weight 0 (padding) are skipped.

    Args:
        loss: the loss of a batch.
        size: the maximum number of examples per step.
    """

    def __init__(self, loss: FunctionalLoss, size: int) -> None:
        self.loss, self.size = loss, size
        self.holders, self.state = loss.holders, loss.state

    def __call__(self, params: dict[str, Tensor], batch: Any) -> Tensor:
        step = current_step() or 0
        if isinstance(batch, Batch) and batch.weight is not None:
            return self.loss(params, Batch(batch.x, batch.y, batch.weight * self._share(batch.weight, step)))

        found = tensors(batch.x if isinstance(batch, Batch) else batch)
        count = len(found[0])

        def share(examples: Tensor) -> Tensor:
            if examples.ndim == 0 or len(examples) != count:
                return examples  # not a tensor with an entry per example
            shares = math.ceil(len(examples) / self.size)
            return examples[step % shares :: shares]

        return self.loss(params, mapped(share, batch))

    def _share(self, weight: Tensor, step: int) -> Tensor:
        """1 for the examples of this step's part, counted without padding, and 0 for all others."""
        present = weight != 0
        shares = (present.sum() + self.size - 1).div(self.size, rounding_mode="floor").clamp(min=1)
        place = present.cumsum(0) - 1
        return (place.remainder(shares) == step % shares).to(weight.dtype)


class QueryLoss:
    """The loss of one task after adaptation, evaluated at the right inner step and with the support set's statistics.

    Args:
        loss: the loss of a batch.
        path: [φ_0, …, φ_K]; the parameters that the loss is called with are one of these.
        support: the support set that the task was adapted to.
        ends_only: whether only φ_0 and φ_K are differentiable.

    Raises:
        ValueError: when it is called, the parameters are not differentiable.
    """

    def __init__(
        self, loss: FunctionalLoss, path: list[dict[str, Tensor]], support: Any, ends_only: bool = False
    ) -> None:
        self.loss, self.path, self.support, self.ends_only = loss, path, support, ends_only

    def __call__(self, params: dict[str, Tensor], batch: Any) -> Tensor:
        last = len(self.path) - 1
        step = next((k for k, passed in enumerate(self.path) if passed is params), last)
        if self.ends_only and 0 < step < last and torch.is_grad_enabled():
            raise ValueError(
                f"The adjoint differentiates the end of adaptation only, but the objective uses the loss after step "
                f"{step} of {last}. Use query_loss, or Unrolled or Recomputed."
            )
        return self.at(step, params, batch)

    def at(self, step: int, params: dict[str, Tensor], batch: Any) -> Tensor:
        """The loss at ``params``, evaluated as at φ_step."""
        with inner_step(max(step - 1, 0)):
            if not self.loss.holds_support_norm:
                return self.loss(params, batch)
            with recording() as statistics:
                self.loss(params, self.support)
            with given(statistics):
                return self.loss(params, batch)
