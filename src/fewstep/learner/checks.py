"""Checks that raise before anything is computed: each message says what was expected, what came, and the fix."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from fewstep.adaptation.rules import Params
from fewstep.tasks import Batch, Task
from fewstep.tasks.trees import leaves_of, mapped, tensors


def check_model(model: nn.Module) -> None:
    """Raise if a module cannot be meta-learned."""
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
                "into the shared parameters. Use track_running_stats=False (statistics of the current batch, as in the "
                "MAML paper), or GroupNorm or LayerNorm."
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{f'model.{name}' if name else 'model'} is a {type(module).__name__}, whose parameters cannot be "
                "replaced. Pass the module without torch.jit.script."
            )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"Parameter {name} has no shape yet (lazy module); call the model once on an example.")
        if parameter._backward_hooks:
            raise ValueError(
                f"Parameter {name} has gradient hooks (Tensor.register_hook), which the learner's copy would lose. "
                "Remove them; a rule such as fewstep.chain(transform, fewstep.SGD(...)) can change gradients."
            )


def check_not_sharded(model: nn.Module) -> None:
    """Raise if a module is sharded by FSDP2, whose hooks work on the module and not on its adapted copy."""
    for name, module in model.named_modules():
        if any(kind.__name__ == "FSDPModule" for kind in type(module).__mro__):
            raise ValueError(
                f"{f'model.{name}' if name else 'model'} is sharded by fully_shard (FSDP2), which is not supported: it "
                "gathers the parameters of the module, not those of its adapted copy. Keep the model whole in every "
                "process; see the guide on several processes for what fits."
            )


def rule_tensors(rule: Any) -> dict[str, Tensor]:
    """The parameters and buffers of a rule by name; empty if it is not a module."""
    return dict([*rule.named_parameters(), *rule.named_buffers()]) if isinstance(rule, nn.Module) else {}


def check_rule(rule: Any, params: Params) -> None:
    """Raise if tensors of a rule are on another device than the model.

    A scalar on the CPU would work with parameters on a GPU, but a recorded CUDA graph would keep its first value.
    """
    device = next(iter(params.values())).device
    wrong = {name: value.device for name, value in rule_tensors(rule).items() if value.device != device}
    if wrong:
        name, where = next(iter(wrong.items()))
        raise ValueError(
            f"The model is on {device} and the rule's {name} on {where}. Move them together: "
            f"learner.to({str(device)!r})."
        )


def check_loss(loss: Any, name: str = "loss") -> None:
    """Raise if a loss is not a function of (model, batch)."""
    if not callable(loss):
        raise TypeError(f"{name} must be a function of (model, batch) that gives a scalar; got {type(loss).__name__}.")
    check_instance(loss, name, "fewstep.mse, a function of (model, batch)")
    home = getattr(type(loss) if isinstance(loss, nn.Module) else loss, "__module__", None) or ""
    if home == "torch.nn.functional" or home.startswith("torch.nn.modules"):
        public = f"torch.nn.functional.{loss.__name__}" if home == "torch.nn.functional" else f"torch.nn.{loss!r}"
        raise TypeError(
            f"{name} must be a function of (model, batch); {public} is a function of (prediction, target). Use "
            f"fewstep.supervised({public})."
        )


def check_metric(metric: Any) -> None:
    """Raises if a metric is no function of (model, batch)."""
    check_loss(metric, "metric")
    try:
        names = list(inspect.signature(metric).parameters)
    except (TypeError, ValueError):  # a function without a signature that Python can read
        return
    if names[:1] == ["y_true"]:
        name = getattr(metric, "__name__", repr(metric))
        raise TypeError(
            f"metric must be a function of (model, batch); {name} is one of ({', '.join(names[:2])}). Pass "
            f"fewstep.array_metric({name})."
        )


def is_number(value: Any) -> bool:
    """Whether a value is a number of Python or NumPy, or a NumPy array of no dimensions."""
    return isinstance(value, (int, float, np.number, np.bool_)) or (isinstance(value, np.ndarray) and value.ndim == 0)


def metric_value(value: Any, device: torch.device) -> Tensor:
    """What a metric returned, as a scalar tensor.

    Args:
        value: a scalar tensor or a number.
        device: where the tensor is to be if ``value`` is a number.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, Tensor) and value.ndim == 0 and not value.is_complex():
        return value.detach()
    if is_number(value):
        return torch.tensor(float(value), device=device)
    what = type(value).__name__
    if isinstance(value, (Tensor, np.ndarray)):
        what += f" of shape {tuple(value.shape)} and {value.dtype}"
    raise TypeError(
        f"A metric or a loss of (model, batch) must return a real scalar tensor or a number; got {what}. Reduce it "
        "over the examples, e.g. with .mean()."
    )


def check_instance(value: Any, name: str, example: str) -> None:
    """Raise if a class was passed instead of an object."""
    if isinstance(value, type):
        raise TypeError(f"{name} must be an object, such as {example}; got the class {value.__name__} itself.")


def check_steps(steps: Any) -> None:
    """Raise if a number of inner steps is not a non-negative integer."""
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps must be a whole number, 0 or more; got {steps!r}.")


def check_sets(tasks: Any, params: Params) -> None:
    """Raise if the tensors of a meta-batch do not fit each other or the model."""
    listed = isinstance(tasks, Sequence) and not isinstance(tasks, (str, tuple)) and len(tasks) > 0
    if listed and all(isinstance(task, Task) for task in tasks):
        for task in tasks:
            _check_fit(task, params, axes=1)
        return
    if not isinstance(tasks, Task):
        got = "an empty list" if isinstance(tasks, list) and not tasks else type(tasks).__name__
        raise TypeError(
            f"Expected a fewstep.Task with a leading task axis; got {got}. Make one with fewstep.Task(support, query) "
            "or fewstep.Task.stack([...]), or pass a list of tasks."
        )
    leaves = tensors(tasks)
    sizes = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"Every tensor of a meta-batch needs the same leading task axis; got sizes {sorted(sizes)}. "
            "Stack tasks with fewstep.Task.stack([...])."
        )
    _check_fit(tasks, params, axes=2)


def _check_fit(tasks: Task, params: Params, axes: int) -> None:
    """Check one task or a meta-batch; ``axes`` is the number of leading axes: 2 with a task axis, 1 without."""
    if any(isinstance(leaf, np.ndarray) for leaf in leaves_of(tasks)):
        raise TypeError("The tasks hold numpy arrays, which have no task axis; convert them with torch.as_tensor.")
    device = next(iter(params.values())).device
    wrong = [leaf.device for leaf in tensors(tasks) if leaf.device != device]
    if wrong:
        raise ValueError(f"The model is on {device} and the tasks on {wrong[0]}; move them: tasks.to({str(device)!r}).")
    support, query = tasks.support, tasks.query
    for name, batch in (("support", support), ("query", query)):
        if isinstance(batch, Batch):
            parts = [tensors(part) for part in (batch.x, batch.y, batch.weight)]
            lengths = [{leaf.shape[:axes] for leaf in part if leaf.ndim >= axes} for part in parts]
            if any(0 in shape for shapes in lengths for shape in shapes):
                raise ValueError(f"The {name} set has no examples; each set needs at least one.")
            if len({next(iter(shapes)) for shapes in lengths if len(shapes) == 1}) > 1:
                raise ValueError(
                    f"x, y and weight of the {name} set disagree in the number of examples: got shapes "
                    f"{[tuple(leaf.shape) for leaf in tensors(batch)]}, whose first {axes} axes must be the same."
                )
    if not (isinstance(support, Batch) and isinstance(query, Batch)):
        return
    for name in ("x", "y"):
        for s, q in zip(tensors(getattr(support, name)), tensors(getattr(query, name)), strict=False):
            if s.shape[axes:] != q.shape[axes:] or s.dtype != q.dtype:
                raise ValueError(
                    f"Support and query disagree in {name}: examples of shape {tuple(s.shape[axes:])} and {s.dtype} "
                    f"against {tuple(q.shape[axes:])} and {q.dtype}. Only the number of examples may differ; "
                    "tensors are [tasks, examples, ...]."
                )


def check_scalar(value: Any) -> None:
    """Raise if a loss is not a scalar."""
    if not isinstance(value, Tensor):
        raise TypeError(f"The loss must return a scalar tensor; got {type(value).__name__}. A loss is (model, batch).")
    if value.ndim != 0 or not value.is_floating_point():
        raise ValueError(
            f"The loss must be a scalar floating-point tensor; got shape {tuple(value.shape)} of {value.dtype}. "
            "Reduce it over the examples, e.g. with .mean()."
        )


def check_finite(value: Tensor, batch: Any) -> None:
    """Raise if the loss of a batch is NaN or infinite."""
    if not torch.isfinite(value):
        bad = [leaf for leaf in tensors(batch) if leaf.is_floating_point() and not torch.isfinite(leaf).all()]
        cause = "the support set holds NaN or infinite values" if bad else "the data are finite, so check the model"
        raise ValueError(f"The loss of the first task is {value.item()} at the shared parameters: {cause}.")


def padding_of(tasks: Any) -> Iterator[tuple[Task, Task]]:
    """Tasks with padded examples, each with the same task that has other values in the padded places.

    One pair for the support set and one for the query set. If there are weights but none is 0, the last example is
    treated as padding. The other values are those of the last example that is not padded; real and complex numbers are
    increased by 1.
    """
    for name in ("support", "query"):
        batch = getattr(tasks if isinstance(tasks, Task) else tasks[0], name)
        if not isinstance(batch, Batch) or batch.weight is None or batch.weight.shape[-1] < 2:
            continue
        index = 0
        if isinstance(tasks, Task) and (batch.weight == 0).any():
            index = int((batch.weight == 0).any(1).nonzero()[0])
        task = tasks[index]
        batch = getattr(task, name)
        weight = batch.weight.detach().clone()
        if not (weight == 0).any():
            weight[-1] = 0
        if (weight == 0).all():
            raise ValueError(f"Every example of the {name} set of task {index} has weight 0; at least one must count.")
        padded, last = weight == 0, int((weight != 0).nonzero().max())

        def other(t: Tensor, padded: Tensor = padded, last: int = last) -> Tensor:
            if t.ndim == 0 or len(t) != len(padded):
                return t
            values = t[last] + 1 if t.is_floating_point() or t.is_complex() else t[last]
            return torch.where(padded.view(-1, *[1] * (t.ndim - 1)), values, t)

        same = Batch(batch.x, batch.y, weight)
        shifted = Batch(mapped(other, batch.x), mapped(other, batch.y), weight)
        rest = {n: getattr(task, n) for n in ("support", "query")}
        yield Task(**{**rest, name: same}), Task(**{**rest, name: shifted})
