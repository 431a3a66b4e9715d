"""The first look at a kind of meta-batch: what cannot work is refused before the first step; the rest is settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fewstep.adaptation.random_numbers import replayed
from fewstep.learner.checks import check_rule, check_sets, padding_of
from fewstep.learner.choices import Choices
from fewstep.learner.each_task import EachTask, Tasks
from fewstep.learner.first_task import FirstTask, Function
from fewstep.learner.watch import Own, Randomness
from fewstep.tasks import Task


@dataclass(frozen=True)
class Look:
    """What a look found.

    Args:
        each: how the tasks are taken.
        stochastic: whether the model or the loss draws random numbers (dropout).
        others: tensors that require a gradient and are neither the learner's nor in the tasks.
        mixes_modes: whether the loss takes forward- and reverse-mode derivatives of each other.
    """

    each: EachTask
    stochastic: bool
    others: tuple[Tensor, ...] = ()
    mixes_modes: bool = False


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
    # A resumed run looks again, and must draw the same numbers as one that was not stopped.
    with Randomness(choices.model, choices.loss, choices.inner_loss) as others, replayed():
        first = FirstTask(choices, tasks[0], original, learned is not None)
        first.check_support()
        settled = EachTask(each.vectorize, each.chunk)
        settled.vmaps = each.vmaps
        if function is None:
            for padded in padding_of(tasks):
                first.check_padding(padded, first.support_loss)
        else:
            first.check_function(function)
            for padded in padding_of(tasks):
                first.check_padding(padded, function)
            if isinstance(tasks, Task) and "register_hook" in first.watch.operations:
                if settled.vmaps:
                    raise ValueError(
                        "The model hooks tensors (Tensor.register_hook), and under vmap a hook sees the inner gradient "
                        "only. Leave vectorize out, or pass vectorize=False."
                    )
                settled.vmaps = False
            if settled.vmaps is None and isinstance(tasks, Task):
                settled.vmaps = settled.would_vmap(function, tasks, first.saved_bytes, learned or ())
    others.restore()
    outside = tuple({id(leaf): leaf for leaf in first.others}.values())
    return Look(settled, first.stochastic, outside, first.watch.mixes_modes)
