"""The first look at a kind of meta-batch: what cannot work is refused before the first step; the rest is settled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fewstep.adaptation import Recomputed
from fewstep.adaptation.derivative_errors import explained
from fewstep.adaptation.random_numbers import replayed
from fewstep.learner.checks import check_finite, check_rule, check_scalar, check_sets, padding_of
from fewstep.learner.choices import Choices
from fewstep.learner.each_task import EachTask, SavedBytes, Tasks
from fewstep.learner.second_order import check_second_order, own_functions
from fewstep.learner.watch import Own, Randomness, Watch
from fewstep.models.context import inner_step
from fewstep.tasks import Task
from fewstep.tasks.trees import mapped, tensors

Function = Callable[..., Tensor]
"""Of one task and ``params``: the meta-objective, or scores."""


@dataclass(frozen=True)
class Look:
    """What a look found.

    Args:
        each: how the tasks are taken.
        stochastic: whether the model or the loss draws random numbers (dropout).
    """

    each: EachTask
    stochastic: bool


def look(
    choices: Choices,
    tasks: Tasks,
    function: Function | None,
    each: EachTask,
    original: Own,
    learned: Sequence[Tensor] | None,
) -> Look:
    """Evaluates a function on the first task of a meta-batch, and raises if meta-learning cannot work on it.

    Args:
        choices: the choices in force.
        tasks: a meta-batch.
        function: what will be evaluated of each task; ``None`` for adaptation to support sets alone.
        each: how tasks are to be taken.
        original: the parameters of the model that the learner was made of.
        learned: what the function will be differentiated in; ``None`` if it will not be.
    """
    check_sets(tasks, choices.params())
    check_rule(choices.rule, choices.params())
    with replayed():  # a resumed run looks again, and must draw the same numbers as one that was not stopped
        first = FirstTask(choices, tasks[0], original, learned is not None)
        first.check_support()
        settled = EachTask(each.vectorize, each.chunk)
        settled.vmaps = each.vmaps
        if function is not None:
            first.check_function(function)
            for padded in padding_of(tasks):
                first.check_padding(padded, function)
            if settled.vmaps is None and isinstance(tasks, Task):
                settled.vmaps = settled.would_vmap(function, tasks, first.saved_bytes, learned or ())
    return Look(settled, first.stochastic)


class FirstTask:
    """A task that is tried with copies of all tensors, so that nothing of the user's is written to.

    Args:
        choices: the choices in force.
        task: a task.
        original: see :func:`look`.
        trains: whether it is tried for training, and so with derivatives.
    """

    def __init__(self, choices: Choices, task: Task, original: Own, trains: bool) -> None:
        self.choices, self.trains = choices, trains
        self.task = mapped(lambda t: t.detach().clone(), task)
        self.params = {n: v.detach().clone().requires_grad_(v.requires_grad) for n, v in choices.params().items()}
        self.before = [t.clone() for t in (*tensors(self.task), *self.params.values())]
        self.watch = Watch(choices.model, original, tensors(self.task))
        self.stochastic = False
        self.saved_bytes = 0

    def check_support(self) -> None:
        """Tries the loss of the support set and its gradient."""
        choices, support = self.choices, self.task.support
        adapted = {n: self.params[n].detach().requires_grad_() for n in choices.adapts}
        params = {**self.params, **adapted}
        with choices.unmoved.worked_out_and_compared():
            with Randomness() as drawn, self._watched():
                value = self._counted(lambda: choices.inner(params, support))
            check_scalar(value)
            check_finite(value, support)
            self.watch.check_buffers()
            self._check_watch()
            self.stochastic = drawn.of_torch or drawn.of_others
            if not self.stochastic:
                with torch.enable_grad(), inner_step(0):
                    again = choices.inner(params, support)
                self.stochastic = drawn.of_others = not torch.allclose(again, value, rtol=1e-4)
        if drawn.of_others and isinstance(choices.adjoint, Recomputed):
            raise ValueError(
                "Recomputed replays the random numbers of PyTorch's default generator, and the model draws from "
                "another one (numpy's, Python's, or a generator of its own). Draw with torch functions "
                "without generator=, or use adjoint=Unrolled()."
            )
        functions = own_functions(value)
        self._check_gradient(value, adapted)
        choices.inner.reenters = choices.outer.reenters = choices.inner.reenters or self.watch.reenters
        if self.trains and choices.adjoint.second_order and not drawn.of_others:
            with inner_step(0), self._explained():
                check_second_order(partial(choices.inner, batch=support), self.params, adapted, functions)
        self._check_written()

    def check_function(self, function: Function) -> None:
        """Tries the whole function and its gradient."""
        learned = [value for value in self.params.values() if value.requires_grad]
        with self._watched(grad=self.trains), self._explained():
            value = function(self.task, params=self.params)
        self._check_watch()
        if self.trains and isinstance(value, Tensor):
            check_scalar(value)
            if value.requires_grad and learned:
                with self._watched(backward=True), self._explained():
                    torch.autograd.grad(value, learned, allow_unused=True)
                self._check_watch()
        self._check_written()

    def check_padding(self, padded: tuple[Task, Task], function: Function) -> None:
        """Padding must change nothing: the function with other values in the padded places is the same function."""
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
                "Adapt parameters that the loss depends on, and look for .detach(), .item(), .numpy() or "
                "torch.no_grad() in the model and the loss."
            )
        for name, gradient in zip(names, gradients, strict=True):
            if gradient is not None and not torch.isfinite(gradient).all():
                raise ValueError(f"The gradient of the support loss for parameter {name} is NaN or infinite.")

    @contextmanager
    def _watched(self, backward: bool = False, grad: bool = True) -> Iterator[None]:
        self.watch.in_backward = backward
        with self.watch.following(), torch.set_grad_enabled(grad), nullcontext() if backward else inner_step(0):
            yield
        self.watch.in_backward = False

    def _counted(self, loss: Callable[[], Tensor]) -> Tensor:
        """The loss, and how many bytes it keeps, unless it uses ``torch.func``, which allows no counting."""
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
        except (RuntimeError, NotImplementedError) as error:
            raise self._explanation(error) from error

    def _explanation(self, error: Exception) -> Exception:
        text = str(error)
        if "use_reentrant" in text:
            return ValueError(
                "The model uses activation checkpointing with use_reentrant=True, which torch.autograd.grad does not "
                "support. Checkpoint with use_reentrant=False (Hugging Face: model.gradient_checkpointing_enable("
                'gradient_checkpointing_kwargs={"use_reentrant": False})).'
            )
        clear = explained(error)
        if clear is None:
            return error
        operation = str(clear).split(" ")[0].rpartition(".")[2]
        where = self.watch.operations.get(operation)
        return NotImplementedError(f"{where}: {clear}") if where else clear

    def _check_watch(self) -> None:
        if self.watch.write is not None:
            where, operation = self.watch.write
            raise ValueError(
                f"{where} writes to its input in forward ({operation}), so that the next inner step and the caller "
                "would see other data. Use an operation that is not in-place, or clone the input first."
            )
        if self.watch.leak is not None:
            where, name = self.watch.leak
            raise ValueError(
                f"{where} computes with the parameter {name} itself, not with its adapted values: it holds a reference "
                "to a module or a parameter that is not an attribute, such as one in an object, a global variable or "
                "another module's memory. Make it an attribute of the module, or pass it to forward."
            )

    def _check_written(self) -> None:
        now = (*tensors(self.task), *self.params.values())
        names = [*["the data"] * len(tensors(self.task)), *(f"parameter {name}" for name in self.params)]
        for name, value, before in zip(names, now, self.before, strict=True):
            if not bool(((value == before) | (value != value)).all()):
                raise ValueError(
                    f"The model or the loss writes to {name}; the next inner step and the caller would see other "
                    "values. Use operations that are not in-place."
                )
