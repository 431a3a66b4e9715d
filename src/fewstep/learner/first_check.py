"""The first check of a meta-batch: raises if it cannot be meta-learned, and decides how to evaluate its tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fewstep.adaptation.random_numbers import replayed
from fewstep.learner.checks import check_not_sharded, check_rule, check_sets, padding_of
from fewstep.learner.choices import Choices
from fewstep.learner.each_task import EachTask, Tasks
from fewstep.learner.first_task import FirstTask, Function
from fewstep.learner.watch import ParameterNames, Randomness
from fewstep.tasks import Task


@dataclass(frozen=True)
class FirstCheck:
    """The result of a first check.

    Args:
        each: how tasks are evaluated.
        stochastic: whether the model or the loss draws random numbers (dropout).
        external: tensors that require a gradient and belong neither to the learner nor to the tasks.
        mixes_modes: whether the loss nests forward- and reverse-mode derivatives.
    """

    each: EachTask
    stochastic: bool
    external: tuple[Tensor, ...] = ()
    mixes_modes: bool = False


def first_check(
    choices: Choices,
    tasks: Tasks,
    function: Function | None,
    each: EachTask,
    original: ParameterNames,
    learned: Sequence[Tensor] | None,
) -> FirstCheck:
    """Evaluate a function of the first task of a meta-batch, and raise if it cannot be meta-learned.

    Args:
        choices: the choices of the learner.
        tasks: a meta-batch.
        function: a function of a task, which will be evaluated; ``None`` for adaptation to support sets only.
        each: how tasks are to be evaluated.
        original: the parameters of the user's module.
        learned: the tensors that the function will be differentiated with respect to; ``None`` if it will not be.
    """
    check_not_sharded(choices.model)
    check_sets(tasks, choices.params())
    check_rule(choices.rule, choices.params())
    # A resumed run checks again, and must draw the same numbers as an uninterrupted one.
    with Randomness(choices.model, choices.loss, choices.inner_loss) as randomness, replayed():
        first = FirstTask(choices, tasks[0], original, learned is not None)
        try:
            first.check_support()
            chosen = EachTask(each.vectorize, each.chunk)
            chosen.vmaps = each.vmaps
            if function is None:
                for padded in padding_of(tasks):
                    first.check_padding(padded, first.support_loss)
            else:
                first.check_function(function)
                if getattr(function, "gives_numbers", False):
                    chosen.vmaps = False
                for padded in padding_of(tasks):
                    first.check_padding(padded, function)
                if isinstance(tasks, Task) and "register_hook" in first.watch.operations:
                    if chosen.vmaps:
                        raise ValueError(
                            "The model hooks tensors (Tensor.register_hook), which see only the inner gradient under "
                            'vmap. Use vectorize=False or vectorize="auto".'
                        )
                    chosen.vmaps = False
                if chosen.vmaps is None and isinstance(tasks, Task):
                    chosen.vmaps = chosen.would_vmap(function, tasks, first.saved_bytes, learned or ())
        finally:
            first.watch.release()
    randomness.restore()
    external = tuple({id(leaf): leaf for leaf in first.external}.values())
    return FirstCheck(chosen, first.stochastic, external, first.watch.mixes_modes)
