"""Algorithms that adapt a part of the parameters: ANIL, BOIL, CAVIA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewstep.algorithms.arguments import Model, ModelLoss, trainable_parameters
from fewstep.algorithms.second_order import maml
from fewstep.learner import MetaLearner, select
from fewstep.learner.options import ContextOptions, HeadOptions, refuse
from fewstep.learner.selection import Names

if TYPE_CHECKING:
    from typing_extensions import Unpack


def anil(
    model: Model, loss: ModelLoss, inner_lr: float, steps: int = 1, *, head: Names, **choices: Unpack[HeadOptions]
) -> MetaLearner[Model]:
    """ANIL ("almost no inner loop"): MAML that adapts only the head of the network (Raghu et al. 2019, section 4).

    Args:
        model: as for [`maml`][fewstep.maml].
        loss: as for [`maml`][fewstep.maml].
        inner_lr: the inner learning rate α.
        steps: the number of inner steps, K.
        head: one or more name patterns of the adapted parameters, such as ``"head.*"``.
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner] except ``rule`` and ``adapts``.

    Raises:
        TypeError: ``rule`` or ``adapts`` was passed.
        ValueError: a pattern matches no trainable parameter, or as for [`maml`][fewstep.maml].

    Examples:
        >>> import torch, fewstep
        >>> network = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> anil(network, fewstep.mse, inner_lr=0.01, head="2.*").adapts
        ['2.weight', '2.bias']
    """
    refuse("anil", choices, adapts="name what is adapted with head=..., or use fewstep.maml(adapts=...)")
    return maml(model, loss, inner_lr, steps, adapts=head, **choices)


def boil(
    model: Model, loss: ModelLoss, inner_lr: float, steps: int = 1, *, head: Names, **choices: Unpack[HeadOptions]
) -> MetaLearner[Model]:
    """BOIL ("body only update in inner loop"): MAML that adapts everything but the head (Oh et al. 2021, section 3).

    Args:
        model: as for [`maml`][fewstep.maml].
        loss: as for [`maml`][fewstep.maml].
        inner_lr: the inner learning rate α.
        steps: the number of inner steps, K.
        head: one or more name patterns of the parameters that are not adapted, such as ``"head.*"``.
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner] except ``rule`` and ``adapts``.

    Raises:
        TypeError: ``rule`` or ``adapts`` was passed.
        ValueError: a pattern matches no trainable parameter, or as for [`maml`][fewstep.maml].

    Examples:
        >>> import torch, fewstep
        >>> network = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> boil(network, fewstep.mse, inner_lr=0.01, head="2.*").adapts
        ['0.weight', '0.bias']
    """
    refuse("boil", choices, adapts="name what is kept with head=..., or use fewstep.maml(adapts=...)")
    kept = select(head, trainable_parameters(model), "head")
    return maml(model, loss, inner_lr, steps, adapts=["*", *(f"!{name}" for name in kept)], **choices)


def cavia(
    model: Model,
    loss: ModelLoss,
    inner_lr: float,
    steps: int = 1,
    *,
    context: Names = "context",
    **choices: Unpack[ContextOptions],
) -> MetaLearner[Model]:
    """CAVIA: adapt context parameters, learn all other parameters (Zintgraf et al. 2019, Algorithm 1).

    Args:
        model: a module with context parameters, such as [`ContextConv4`][fewstep.models.ContextConv4].
        loss: as for [`maml`][fewstep.maml].
        inner_lr: the inner learning rate α.
        steps: the number of inner steps, K.
        context: one or more name patterns of the context parameters. They start from their value in the model (zero, in
            the paper) for every task.
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner] except ``rule``, ``adapts`` and
            ``learns``.

    Raises:
        TypeError: ``rule``, ``adapts`` or ``learns`` was passed.
        ValueError: a pattern matches no trainable parameter, or as for [`maml`][fewstep.maml].

    Examples:
        >>> import torch, fewstep
        >>> class WithContext(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.context = torch.nn.Parameter(torch.zeros(2))
        ...         self.layer = torch.nn.Linear(3, 1)
        ...
        ...     def forward(self, x):
        ...         return self.layer(torch.cat([x, self.context.expand(len(x), 2)], 1))
        >>> cavia(WithContext(), fewstep.mse, inner_lr=1.0).adapts
        ['context']
    """
    refuse("cavia", choices, adapts="name what is adapted with context=...", learns="all but the context is learned")
    names = select(context, trainable_parameters(model), "context")
    learns = ["*", *(f"!{name}" for name in names)]
    return maml(model, loss, inner_lr, steps, adapts=context, learns=learns, **choices)
