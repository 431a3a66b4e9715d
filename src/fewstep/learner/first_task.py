"""The first task of a kind of meta-batch, evaluated with copies of all tensors to detect what is not supported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from fewstep.adaptation import Implicit, Recomputed
from fewstep.adaptation.operations import explained
from fewstep.adaptation.rules import Params
from fewstep.learner.checks import check_finite, check_scalar
from fewstep.learner.choices import Choices
from fewstep.learner.each_task import SavedBytes
from fewstep.learner.second_order import check_second_order, leaves_of_graph, own_functions
from fewstep.learner.watch import ParameterNames, Randomness, Watch
from fewstep.models.context import inner_step
from fewstep.tasks import Task
from fewstep.tasks.trees import mapped, tensors

Function = Callable[..., Tensor]
"""A function of one task and ``params``: the meta-objective, or scores."""


class FirstTask:
    """A task that is evaluated with copies of all tensors, so that the user's tensors are not modified.

    Args:
        choices: the choices of the learner.
        task: the task.
        original: the parameters of the user's module.
        trains: whether it is checked for training, and so with derivatives.
    """

    def __init__(self, choices: Choices, task: Task, original: ParameterNames, trains: bool) -> None:
        self.choices, self.trains = choices, trains
        self.task = mapped(lambda t: t.detach().clone(), task)
        self.params = {n: v.detach().clone().requires_grad_(v.requires_grad) for n, v in choices.params().items()}
        self.before = [t.clone() for t in (*tensors(self.task), *self.params.values())]
        self.watch = Watch(choices.model, original, tensors(self.task))
        self.stochastic = False
        self.external: list[Tensor] = []
        self.saved_bytes = 0

    def check_support(self) -> None:
        """Check the loss of the support set and its gradient."""
        choices, support = self.choices, self.task.support
        adapted = {n: self.params[n].detach().requires_grad_() for n in choices.adapts}
        params = {**self.params, **adapted}
        with choices.unadapted.comparing():
            with Randomness(choices.model, choices.inner_loss) as drawn, self._watched(), self._explained():
                value = self._counted(lambda: choices.inner(params, support))
            check_scalar(value)
            self._check_left_over(value)
            check_finite(value, support)
            self.watch.check_buffers()
            self._check_watch()
            self.stochastic = drawn.from_torch or drawn.from_others
            if not self.stochastic:
                with torch.enable_grad(), inner_step(0):
                    again = choices.inner(params, support)
                if not torch.allclose(again, value, rtol=1e-4):
                    raise ValueError(
                        f"The support loss of one task is {value.item():.6g}, but {again.item():.6g} when it is "
                        "evaluated again with the same parameters, data and random numbers. The model or the loss "
                        "keeps a state between calls (a tensor, a counter, or a generator that is not an attribute), "
                        "which would leak from task to task. Keep no state in forward, and make generators attributes "
                        "of the module."
                    )
        if not self.stochastic:
            self._check_reuse(params, value)
        if drawn.from_others and isinstance(choices.adjoint, Recomputed):
            raise ValueError(
                "Recomputed replays the random numbers of PyTorch's default generator, but the model draws from "
                "another one (numpy's, Python's, or its own). Draw with torch functions without generator=, or use "
                "adjoint=Unrolled()."
            )
        functions = [
            *own_functions(value),
            *(["Tensor.register_hook"] if "register_hook" in self.watch.operations else []),
        ]
        self.external.extend(self._unknown(value, adapted, lambda: choices.inner(params, support)))
        self._check_gradient(value, adapted)
        choices.inner.reenters = choices.outer.reenters = choices.inner.reenters or self.watch.reenters
        if self.trains and choices.adjoint.second_order and choices.compares and not drawn.from_others:
            with inner_step(0), self._explained():
                check_second_order(partial(choices.inner, batch=support), self.params, adapted, functions)
        self._check_written()

    def check_function(self, function: Function) -> None:
        """Check the whole function and its gradient."""
        learned = [value for value in self.params.values() if value.requires_grad]
        with self._watched(grad=self.trains), self._explained():
            value = function(self.task, params=self.params)
        self._check_watch()
        if self.trains and isinstance(value, Tensor):
            check_scalar(value)
            self.external.extend(self._unknown(value, {}, lambda: function(self.task, params=self.params)))
            if value.requires_grad and learned:
                with self._watched(backward=True), self._explained():
                    torch.autograd.grad(value, learned, allow_unused=True)
                self._check_watch()
        self._check_written()

    def _check_reuse(self, params: Params, value: Tensor) -> None:
        """Disable the reuse of outputs if it changes the loss or makes it fail."""
        try:
            with self.choices.unadapted.reusing(), torch.enable_grad(), inner_step(0):
                self.choices.inner(params, self.task.support)
                again = self.choices.inner(params, self.task.support)
            same = torch.allclose(again, value, rtol=1e-5)
        except Exception:  # the loss may need attributes that the modules would have set
            same = False
        if not same:
            self.choices.unadapted.disable()

    def _unknown(self, value: Tensor, adapted: Params, again: Callable[[], Tensor]) -> list[Tensor]:
        """Leaves of the graph that require a gradient and belong neither to the learner nor to the task."""
        choices = self.choices
        known = [*self.params.values(), *adapted.values(), *tensors(self.task), *self.watch.made]
        for part in (choices.loss, choices.inner_loss, choices.rule, choices.objective):
            if isinstance(part, nn.Module):
                known.extend((*part.parameters(), *part.buffers()))
        found = leaves_of_graph(value, known)
        if found:  # leaves that are made in every evaluation do not matter
            with torch.enable_grad(), inner_step(0):
                there = {id(leaf) for leaf in leaves_of_graph(again(), known)}
            found = [leaf for leaf in found if id(leaf) in there]
        for leaf in found:
            name = self.watch.parameter_names[1].name(leaf)
            if name is not None:
                raise ValueError(
                    f"The loss computes with the parameter {name} of the module that was passed to the learner. The "
                    "learner trains a copy: use the model that is passed to the loss, or .detach() for a constant."
                )
        if found and isinstance(choices.adjoint, (Recomputed, Implicit)):
            raise ValueError(
                f"The loss or the rule depends on a tensor of shape {tuple(found[0].shape)} that requires a gradient "
                f"but is not a parameter of the learner, which {type(choices.adjoint).__name__} does not support. Make "
                "it a parameter of the model, the loss or the rule, put it into the tasks, or use Unrolled()."
            )
        return found

    def support_loss(self, task: Task, params: Params) -> Tensor:
        """The loss of the support set."""
        return self.choices.inner(params, task.support)

    def check_padding(self, padded: tuple[Task, Task], function: Function) -> None:
        """Raise if the values of padded examples change the function."""
        if self.stochastic:
            return
        with torch.no_grad():
            expected, came = (function(task, params=self.params) for task in padded)
        if not torch.allclose(expected, came, rtol=1e-4, equal_nan=True):
            expected, came = expected.flatten()[-1], came.flatten()[-1]
            raise ValueError(
                f"Padded examples (Batch.weight 0) change the loss, from {expected.item():.6g} to {came.item():.6g}. "
                "Weight each example's loss by batch.weight, as fewstep.mse does; normalisation over the batch cannot "
                "be used with padding."
            )

    def _check_gradient(self, value: Tensor, adapted: dict[str, Tensor]) -> None:
        names = list(adapted)
        gradients: list[Tensor | None] = [None] * len(names)
        if value.requires_grad:
            with self._watched(backward=True), self._explained():
                gradients = list(torch.autograd.grad(value, list(adapted.values()), allow_unused=True))
        if all(gradient is None for gradient in gradients):
            raise ValueError(
                f"The loss reaches none of the adapted parameters {names}: its gradient for them does not exist. "
                "Adapt parameters that the loss depends on, and check the model and the loss for .detach(), .item(), "
                ".numpy() and torch.no_grad()."
            )
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None and gradient.layout != torch.strided:
                raise ValueError(
                    f"The gradient for parameter {name} is sparse, which the inner loop does not support. Use "
                    "sparse=False in the layer."
                )
            if gradient is not None and not torch.isfinite(gradient).all():
                raise ValueError(f"The gradient of the support loss for parameter {name} is NaN or infinite.")

    @contextmanager
    def _watched(self, backward: bool = False, grad: bool = True) -> Iterator[None]:
        self.watch.in_backward = backward
        with self.watch.following(), torch.set_grad_enabled(grad), nullcontext() if backward else inner_step(0):
            yield
        self.watch.in_backward = False

    def _counted(self, loss: Callable[[], Tensor]) -> Tensor:
        """The loss; counts the bytes it keeps, unless it uses ``torch.func``, which does not support the counting."""
        saved = SavedBytes()
        try:
            with saved:
                value = loss()
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):
                raise
            return loss()
        self.saved_bytes = saved.count
        return value

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self._explanation(error) from error
        except IndexError as error:
            label = re.match(r"Target (-?\d+) is out of bounds", str(error))
            if label is None:
                raise
            raise ValueError(
                f"The loss got the class label {label[1]}, for which the network has no output. Labels of a task with "
                "N ways are 0 to N - 1, and the network needs N outputs."
            ) from error
        except TypeError as error:
            if "Batch" not in str(error) or "fewstep" in str(error):
                raise
            hint = (
                "A loss or a metric is a function of (model, batch). For a loss of (prediction, target) pass "
                "fewstep.supervised(loss); for a metric of arrays (targets, predictions), fewstep.array_metric(metric)."
            )
            raise TypeError(f"{error}. {hint}") from error

    def _explanation(self, error: Exception) -> Exception:
        text = str(error)
        if "use_reentrant" in text:
            return _reentrant("The model")
        clear = explained(error)
        if clear is None:
            return error
        operation = str(clear).split(" ")[0].rpartition(".")[2]
        where = self.watch.operations.get(operation)
        return NotImplementedError(f"{where}: {clear}") if where else clear

    def _check_left_over(self, value: Tensor) -> None:
        if torch.isnan(value) and self.watch.left_over:
            raise ValueError(
                f"The model reads {', '.join(self.watch.left_over)} in forward: a tensor that was computed from its "
                "parameters before, and does not change when they are adapted. Compute it in forward."
            )

    def _check_watch(self) -> None:
        if self.watch.reentrant is not None:
            raise _reentrant(self.watch.reentrant)
        if self.watch.write is not None:
            where, operation = self.watch.write
            raise ValueError(
                f"{where} writes to its input in forward ({operation}), so the next inner step and the caller would "
                "see modified data. Use an operation that is not in-place, or clone the input first."
            )
        if self.watch.leak is not None:
            where, name = self.watch.leak
            raise ValueError(
                f"{where} computes with the parameter {name} itself, not with its adapted values: it refers to a "
                "module or parameter that is not an attribute, but for example in an object, a global variable or a "
                "closure. Make it an attribute of the module, or pass it to forward."
            )

    def _check_written(self) -> None:
        if any(tensor.requires_grad for tensor in tensors(self.task)):
            raise ValueError(
                "The model or the loss calls requires_grad_() on the data, so the adapted parameters would depend on "
                "them, which changes derivatives with respect to the data. Use a separate tensor: "
                "x = batch.x.detach().requires_grad_()."
            )
        now = (*tensors(self.task), *self.params.values())
        names = [*["the data"] * len(tensors(self.task)), *(f"parameter {name}" for name in self.params)]
        for name, value, before in zip(names, now, self.before, strict=True):
            dense = value.layout == torch.strided
            if dense and not bool(((value == before) | (value != value)).all()):
                raise ValueError(
                    f"The model or the loss writes to {name}, so the next inner step and the caller would see modified "
                    "values. Use operations that are not in-place."
                )


def _reentrant(where: str) -> ValueError:
    return ValueError(
        f"{where} uses activation checkpointing with use_reentrant=True, which torch.autograd.grad does not support: "
        "the parameters inside get no gradient. Use use_reentrant=False (Hugging Face: "
        'model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})).'
    )
