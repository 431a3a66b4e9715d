"""The algorithms of the family, each a composition of the five choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from fewstep.adaptation import FirstOrder, GradientDescent, Implicit, LearnedRates, MetaLSTM, Rule, Unrolled
from fewstep.learner import MetaLearner, Scheduled, select
from fewstep.learner.options import (
    AdaptsOptions,
    ContextOptions,
    HeadOptions,
    ObjectiveOptions,
    Options,
    RuleOptions,
    refuse,
)
from fewstep.learner.scheduled import at_iteration
from fewstep.learner.selection import Names
from fewstep.objectives import multi_step_loss, reptile_loss

if TYPE_CHECKING:
    from typing_extensions import Unpack

Model = TypeVar("Model", bound=nn.Module)
ModelLoss = Callable[..., Tensor]

_RULE = "for another rule use fewstep.MetaLearner(rule=...)"


def maml(
    model: Model, loss: ModelLoss, inner_lr: float, steps: int = 1, **choices: Unpack[Options]
) -> MetaLearner[Model]:
    """MAML: gradient descent, exact adjoint, query loss after the last step (Finn et al. 2017, Algorithm 1).

    Args:
        model: any ``nn.Module``.
        loss: ``loss(model, batch) -> scalar``.
        inner_lr: the step size α of the inner loop.
        steps: inner updates, K.
        **choices: any other argument of :class:`fewstep.MetaLearner`, such as ``adjoint=fewstep.Recomputed()``.
    """
    refuse("maml", choices, rule=_RULE)
    return MetaLearner(model, loss, rule=GradientDescent(inner_lr), steps=steps, **choices)


def fomaml(
    model: Model, loss: ModelLoss, inner_lr: float, steps: int = 1, **choices: Unpack[ObjectiveOptions]
) -> MetaLearner[Model]:
    """First-order MAML: MAML without second derivatives (Finn et al. 2017, section 5.2). Arguments as for ``maml``."""
    refuse("fomaml", choices, adjoint="for another adjoint use fewstep.maml(adjoint=...)")
    return maml(model, loss, inner_lr, steps, adjoint=FirstOrder(), **choices)


def anil(
    model: Model, loss: ModelLoss, inner_lr: float, steps: int = 1, *, head: Names, **choices: Unpack[HeadOptions]
) -> MetaLearner[Model]:
    """Almost no inner loop: only the head is adapted (Raghu et al. 2019, section 4).

    ``head`` names its parameters, such as ``"head.*"``; the other arguments are those of ``maml``.
    """
    refuse("anil", choices, adapts="name what is adapted with head=..., or use fewstep.maml(adapts=...)")
    return maml(model, loss, inner_lr, steps, adapts=head, **choices)


def boil(
    model: Model, loss: ModelLoss, inner_lr: float, steps: int = 1, *, head: Names, **choices: Unpack[HeadOptions]
) -> MetaLearner[Model]:
    """Body only update in the inner loop: all but the head is adapted (Oh et al. 2021, section 3). As ``anil``."""
    refuse("boil", choices, adapts="name what is kept with head=..., or use fewstep.maml(adapts=...)")
    kept = select(head, _trainable(model), "head")
    return maml(model, loss, inner_lr, steps, adapts=["*", *(f"!{name}" for name in kept)], **choices)


def meta_sgd(
    model: Model, loss: ModelLoss, inner_lr: float, steps: int = 1, **choices: Unpack[Options]
) -> MetaLearner[Model]:
    """Meta-SGD: a learned rate for every entry of every parameter (Li et al. 2017, Algorithm 1).

    ``inner_lr`` is where the rates start; the other arguments are those of ``maml``.
    """
    refuse("meta_sgd", choices, rule=_RULE)
    rule = LearnedRates(_adapted(model, choices), inner_lr, per="parameter")
    return MetaLearner(model, loss, rule=rule, steps=steps, **choices)


def maml_plus_plus(
    model: Model,
    loss: ModelLoss,
    inner_lr: float,
    steps: int = 5,
    *,
    iterations_per_epoch: int = 500,
    multi_step_epochs: int = 15,
    first_order_epochs: int = 50,
    **choices: Unpack[RuleOptions],
) -> MetaLearner[Model]:
    """MAML++: learned per-tensor per-step rates, annealed multi-step loss and derivative order (Antoniou et al. 2018).

    The cosine schedule of the outer rate is the optimiser's, and per-step normalisation the model's.

    Args:
        model: any ``nn.Module``.
        loss: ``loss(model, batch) -> scalar``.
        inner_lr: where the learned rates start.
        steps: inner updates, K.
        iterations_per_epoch: outer iterations that count as an epoch.
        multi_step_epochs: epochs over which the loss moves to the last step; 0 for the last step only.
        first_order_epochs: epochs before second derivatives are switched on; 0 for always on.
        **choices: any other argument of :class:`fewstep.MetaLearner`.
    """
    choices.setdefault("rule", LearnedRates(_adapted(model, choices), inner_lr, per="tensor", steps=steps))
    choices.setdefault(
        "objective",
        Scheduled(lambda i: multi_step_loss.annealed(steps, i // iterations_per_epoch, multi_step_epochs)),
    )
    exact = choices.get("adjoint", Unrolled())
    second_order_from = first_order_epochs * iterations_per_epoch
    annealed = Scheduled(lambda i: FirstOrder() if i < second_order_from else at_iteration(exact, i))
    options: Any = {**choices, "adjoint": annealed}
    return MetaLearner(model, loss, steps=steps, **options)


def reptile(
    model: Model,
    loss: ModelLoss,
    rule: Rule,
    steps: int = 5,
    *,
    inner_batch: int | None = None,
    **choices: Unpack[AdaptsOptions],
) -> MetaLearner[Model]:
    """Reptile: the meta-gradient is θ − φ, where the support set leads (Nichol et al. 2018, Algorithm 2).

    An outer ``torch.optim.SGD(lr=ε)`` makes it θ ← θ + ε·mean(φ − θ).

    Args:
        model: any ``nn.Module``.
        loss: ``loss(model, batch) -> scalar``.
        rule: the inner update; the paper's is ``CarriedAdam(model.named_parameters(), 1e-3, betas=(0.0, 0.999))``.
        steps: inner updates; with one, Reptile only minimises the joint loss of all tasks.
        inner_batch: examples of the support set that each step sees, other ones than the last step. Without it every
            step sees all, and little is left of what makes Reptile few-shot: that a step on some of a task's examples
            should help on its others (section 5.1).
        **choices: any other argument of :class:`fewstep.MetaLearner`.
    """
    instead = "use fewstep.MetaLearner"
    refuse("reptile", choices, adjoint=instead, objective=instead)
    defining: Any = {"adjoint": FirstOrder(), "objective": reptile_loss, "inner_batch": inner_batch}
    return MetaLearner(model, loss, rule=rule, steps=steps, **defining, **choices)


def imaml(
    model: Model,
    loss: ModelLoss,
    inner_lr: float,
    steps: int = 10,
    *,
    regularization: float = 1.0,
    cg_steps: int = 5,
    damping: float = 0.0,
    **choices: Unpack[ObjectiveOptions],
) -> MetaLearner[Model]:
    """Implicit MAML: the adjoint is a linear system at φ (Rajeswaran et al. 2019, Algorithm 2).

    Args:
        model: any ``nn.Module``.
        loss: ``loss(model, batch) -> scalar``.
        inner_lr: step size of the gradient descent that solves the inner problem; it comes to rest only below 2 over
            the sum of λ and the loss's largest curvature.
        steps: its steps; many, so that φ comes near the regularised minimum.
        regularization: λ of the pull λ/2·‖φ − θ‖² to the shared parameters.
        cg_steps: conjugate-gradient iterations.
        damping: added to λ in the linear system, see :class:`fewstep.Implicit`.
        **choices: any other argument of :class:`fewstep.MetaLearner`.
    """
    refuse("imaml", choices, adjoint="for another adjoint use fewstep.maml(adjoint=...)")
    return maml(model, loss, inner_lr, steps, adjoint=Implicit(regularization, cg_steps, damping), **choices)


def cavia(
    model: Model,
    loss: ModelLoss,
    inner_lr: float,
    steps: int = 1,
    *,
    context: Names = "context",
    **choices: Unpack[ContextOptions],
) -> MetaLearner[Model]:
    """CAVIA: only context parameters are adapted, and only the others are learned (Zintgraf et al. 2019, Algorithm 1).

    ``context`` names the parameters of the model that are reset to their initial value (zero, in the paper) for every
    task; the other arguments are those of ``maml``.
    """
    refuse("cavia", choices, adapts="name what is adapted with context=...", learns="all but the context is learned")
    names = select(context, _trainable(model), "context")
    learns = ["*", *(f"!{name}" for name in names)]
    return maml(model, loss, inner_lr, steps, adapts=context, learns=learns, **choices)


def meta_lstm(
    model: Model, loss: ModelLoss, steps: int = 12, *, hidden: int = 20, **choices: Unpack[RuleOptions]
) -> MetaLearner[Model]:
    """Meta-LSTM: a learned optimiser, shared by all coordinates, first order (Ravi and Larochelle 2017, Algorithm 1).

    The paper trains it with Adam at 1e-3 and ``clip_norm=0.25``.

    Args:
        model: any ``nn.Module``; its parameters are the initial cell, which is learned.
        loss: ``loss(model, batch) -> scalar``.
        steps: inner updates, K, each on the whole support set; 12 for one shot and 8 for five in the paper.
        hidden: units of the first LSTM.
        **choices: any other argument of :class:`fewstep.MetaLearner`, such as another ``rule=fewstep.MetaLSTM(...)``.
    """
    choices.setdefault("rule", MetaLSTM(hidden).to(next(iter(_adapted(model, choices).values()))))
    choices.setdefault("adjoint", FirstOrder())
    return MetaLearner(model, loss, steps=steps, **choices)


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def _adapted(model: nn.Module, choices: Any) -> dict[str, Tensor]:
    params = _trainable(model)
    return {name: params[name] for name in select(choices.get("adapts", "*"), params, "adapts")}
