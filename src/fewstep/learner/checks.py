"""What cannot work fails at once: with what was expected, what came, and the fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_leaves, tree_map

from fewstep.adaptation.random_numbers import random_state
from fewstep.learner.each_task import SavedBytes
from fewstep.learner.task_loss import TaskLoss
from fewstep.tasks import Batch, Task

Params = dict[str, Tensor]


def check_model(model: nn.Module) -> None:
    """Raises if a module cannot be meta-learned as it is."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module; got {type(model).__name__}. "
            "Wrap a function of a dictionary with fewstep.models.Function(function, params)."
        )
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            where = f"model.{name}" if name else "model"
            raise ValueError(
                f"{where} is a {type(module).__name__} with running statistics, which would leak from task to task and "
                "into the shared parameters. Use track_running_stats=False (statistics of the current batch, as the "
                "MAML paper does), or GroupNorm or LayerNorm."
            )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"Parameter {name} has no shape yet (lazy module); call the model once on an example.")


def rule_tensors(rule: Any) -> dict[str, Tensor]:
    """A rule's parameters and buffers by name, as far as it has any."""
    return dict([*rule.named_parameters(), *rule.named_buffers()]) if isinstance(rule, nn.Module) else {}


def check_rule(rule: Any, params: Params) -> None:
    """Raises if what a rule learns is on another device than the model.

    A scalar on a CPU would do beside parameters on a GPU, but a recorded CUDA graph would keep its first value.
    """
    device = next(iter(params.values())).device
    wrong = {name: value.device for name, value in rule_tensors(rule).items() if value.device != device}
    if wrong:
        name, where = next(iter(wrong.items()))
        raise ValueError(
            f"The model is on {device} and the rule's {name} on {where}; move them together: "
            f"learner.to({str(device)!r})."
        )


@dataclass(frozen=True)
class Observed:
    """What one look at a task's loss told.

    Args:
        saved_bytes: memory that the support loss keeps for its backward pass.
        stochastic: whether the loss draws random numbers (dropout).
    """

    saved_bytes: int
    stochastic: bool


def check_task(loss: TaskLoss, model: nn.Module, params: Params, adapts: Sequence[str], tasks: Task) -> Observed:
    """Evaluates the inner loss on the first task of a meta-batch, and raises if meta-learning cannot work on it."""
    if not isinstance(tasks, Task):
        raise TypeError(f"Expected a fewstep.tasks.Task with a leading task axis; got {type(tasks).__name__}.")
    _check_sets(tasks, params)
    task = tasks[0]
    params = {name: value.detach() for name, value in params.items()}
    adapted = {name: params[name].clone().requires_grad_() for name in adapts}
    buffers = {name: (buffer, buffer._version) for name, buffer in model.named_buffers()}
    before_value = random_state()
    saved = SavedBytes()
    with torch.enable_grad(), saved:
        value = loss({**params, **adapted}, task.support)
    _check_value(value, task.support)
    for name, buffer in model.named_buffers():
        before, version = buffers.get(name, (buffer, buffer._version))
        if buffer is not before or buffer._version != version:
            raise ValueError(
                f"The model writes to its buffer {name} in forward; what one task writes would leak into the next. "
                "Return new values instead, or make it a parameter."
            )
    after_value = random_state()
    stochastic = not all(torch.equal(state, after_value[device]) for device, state in before_value.items())
    gradients: list[Tensor | None] = [None] * len(adapts)
    if value.requires_grad:
        gradients = list(torch.autograd.grad(value, list(adapted.values()), allow_unused=True))
    if all(gradient is None for gradient in gradients):
        raise ValueError(
            f"The loss reaches none of the adapted parameters {list(adapts)}: its gradient for them does not exist. "
            "Adapt parameters that the loss depends on, and look for .detach(), .item(), .numpy() or torch.no_grad() "
            "in the model and the loss."
        )
    for name, gradient in zip(adapts, gradients, strict=True):
        if gradient is not None and not torch.isfinite(gradient).all():
            raise ValueError(f"The gradient of the support loss for parameter {name} is NaN or infinite.")
    if not stochastic:
        _check_weights(loss, {**params, **adapted}, tasks)
    return Observed(saved.count, stochastic)


def _check_sets(tasks: Task, params: Params) -> None:
    leaves = tree_leaves(tasks)
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(sizes) > 1 or 0 in sizes:
        raise ValueError(
            f"Every tensor of a meta-batch needs the same leading task axis; got sizes {sorted(sizes)}. "
            "Stack tasks with fewstep.tasks.Task.stack([...])."
        )
    device = next(iter(params.values())).device
    wrong = [leaf.device for leaf in leaves if leaf.device != device]
    if wrong:
        raise ValueError(f"The model is on {device} and the tasks on {wrong[0]}; move them: tasks.to({str(device)!r}).")
    support, query = tasks.support, tasks.query
    if not (isinstance(support, Batch) and isinstance(query, Batch)):
        return
    for name in ("x", "y"):
        ours, theirs = tree_leaves(getattr(support, name)), tree_leaves(getattr(query, name))
        for s, q in zip(ours, theirs, strict=False):
            if s.shape[2:] != q.shape[2:] or s.dtype != q.dtype:
                raise ValueError(
                    f"Support and query disagree in {name}: examples of shape {tuple(s.shape[2:])} and {s.dtype} "
                    f"against {tuple(q.shape[2:])} and {q.dtype}. Only the number of examples may differ; tensors are "
                    "[tasks, examples, ...]."
                )


def _check_value(value: Any, batch: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"The loss must return a scalar tensor; got {type(value).__name__}. A loss is (model, batch).")
    if value.ndim != 0 or not value.is_floating_point():
        raise ValueError(
            f"The loss must be a scalar floating-point tensor; got shape {tuple(value.shape)} of {value.dtype}. "
            "Reduce it over the examples, e.g. with .mean()."
        )
    if not torch.isfinite(value):
        bad = [leaf for leaf in tree_leaves(batch) if leaf.is_floating_point() and not torch.isfinite(leaf).all()]
        cause = "the support set holds NaN or infinite values" if bad else "the data are finite, so look at the model"
        raise ValueError(f"The loss of the first task is {value.item()} at the shared parameters: {cause}.")


def _check_weights(loss: TaskLoss, params: Params, tasks: Task) -> None:
    """Padding must change nothing: the loss with other values in the padded places is the same loss."""
    batch = tasks.support
    if not isinstance(batch, Batch) or batch.weight is None or not (batch.weight == 0).any():
        return
    index = int((batch.weight == 0).any(1).nonzero()[0])
    padded: Tensor = batch.weight[index] == 0
    shifted = tree_map(
        lambda t: torch.where(padded.view(-1, *[1] * (t.ndim - 1)), t + 1, t) if t.is_floating_point() else t,
        batch[index],
    )
    shifted = Batch(shifted.x, shifted.y, batch[index].weight)
    with torch.no_grad():
        expected, came = loss(params, batch[index]), loss(params, shifted)
    if not torch.allclose(expected, came, rtol=1e-4):
        raise ValueError(
            f"Padded examples (Batch.weight 0) change the loss, from {expected.item():.6g} to {came.item():.6g}. "
            "Weight each example's loss by batch.weight, as fewstep.mse does; normalisation over the batch cannot "
            "be used with padding."
        )
