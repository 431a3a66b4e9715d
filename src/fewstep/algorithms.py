"""The algorithms of the family, each a composition of the five choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fewstep.adaptation import FirstOrder, GradientDescent, Implicit, LearnedRates, MetaLSTM, Rule, Unrolled
from fewstep.learner import MetaLearner, Scheduled, select
from fewstep.learner.selection import Names
from fewstep.objectives import multi_step_loss, reptile_loss

TaskLoss = Callable[..., Tensor]


def maml(model: nn.Module, loss: TaskLoss, inner_lr: float, steps: int = 1, **choices: Any) -> MetaLearner:
    """MAML: gradient descent, exact adjoint, query loss after the last step (Finn et al. 2017, Algorithm 1).

    Args:
        model: any ``nn.Module``.
        loss: ``loss(model, batch) -> scalar``.
        inner_lr: the step size α of the inner loop.
        steps: inner updates, K.
        **choices: any other argument of :class:`fewstep.MetaLearner`, such as ``adjoint=fewstep.Recomputed()``.
    """
    return MetaLearner(model, loss, rule=GradientDescent(inner_lr), steps=steps, **choices)


def fomaml(model: nn.Module, loss: TaskLoss, inner_lr: float, steps: int = 1, **choices: Any) -> MetaLearner:
    """First-order MAML: MAML without second derivatives (Finn et al. 2017, section 5.2). Arguments as for ``maml``."""
    return maml(model, loss, inner_lr, steps, adjoint=FirstOrder(), **choices)


def anil(
    model: nn.Module, loss: TaskLoss, inner_lr: float, steps: int = 1, *, head: Names, **choices: Any
) -> MetaLearner:
    """Almost no inner loop: only the head is adapted (Raghu et al. 2019, section 4).

    ``head`` names its parameters, such as ``"head.*"``; the other arguments are those of ``maml``.
    """
    return maml(model, loss, inner_lr, steps, adapts=head, **choices)


def boil(
    model: nn.Module, loss: TaskLoss, inner_lr: float, steps: int = 1, *, head: Names, **choices: Any
) -> MetaLearner:
    """Body only update in the inner loop: all but the head is adapted (Oh et al. 2021, section 3). As ``anil``."""
    kept = select(head, _trainable(model), "head")
    return maml(model, loss, inner_lr, steps, adapts=["*", *(f"!{name}" for name in kept)], **choices)


def meta_sgd(model: nn.Module, loss: TaskLoss, inner_lr: float, steps: int = 1, **choices: Any) -> MetaLearner:
    """Meta-SGD: a learned rate for every entry of every parameter (Li et al. 2017, Algorithm 1).

    ``inner_lr`` is where the rates start; the other arguments are those of ``maml``.
    """
    rule = LearnedRates(_adapted(model, choices), inner_lr, per="parameter")
    return MetaLearner(model, loss, rule=rule, steps=steps, **choices)


def maml_plus_plus(
    model: nn.Module,
    loss: TaskLoss,
    inner_lr: float,
    steps: int = 5,
    *,
    iterations_per_epoch: int = 500,
    multi_step_epochs: int = 15,
    first_order_epochs: int = 50,
    **choices: Any,
) -> MetaLearner:
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
    exact = choices.pop("adjoint", Unrolled())
    annealed = Scheduled(lambda i: FirstOrder() if i < first_order_epochs * iterations_per_epoch else exact)
    return MetaLearner(model, loss, steps=steps, adjoint=annealed, **choices)


def reptile(
    model: nn.Module, loss: TaskLoss, rule: Rule, steps: int = 5, *, inner_batch: int | None = None, **choices: Any
) -> MetaLearner:
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
    choices["inner_batch"] = inner_batch
    return MetaLearner(model, loss, rule=rule, steps=steps, adjoint=FirstOrder(), objective=reptile_loss, **choices)


def imaml(
    model: nn.Module,
    loss: TaskLoss,
    inner_lr: float,
    steps: int = 10,
    *,
    regularization: float = 1.0,
    cg_steps: int = 5,
    damping: float = 0.0,
    **choices: Any,
) -> MetaLearner:
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
    return maml(model, loss, inner_lr, steps, adjoint=Implicit(regularization, cg_steps, damping), **choices)


def cavia(
    model: nn.Module, loss: TaskLoss, inner_lr: float, steps: int = 1, *, context: Names = "context", **choices: Any
) -> MetaLearner:
    """CAVIA: only context parameters are adapted, and only the others are learned (Zintgraf et al. 2019, Algorithm 1).

    ``context`` names the parameters of the model that are reset to their initial value (zero, in the paper) for every
    task; the other arguments are those of ``maml``.
    """
    names = select(context, _trainable(model), "context")
    learns = ["*", *(f"!{name}" for name in names)]
    return maml(model, loss, inner_lr, steps, adapts=context, learns=learns, **choices)


def meta_lstm(model: nn.Module, loss: TaskLoss, steps: int = 12, *, hidden: int = 20, **choices: Any) -> MetaLearner:
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


def _adapted(model: nn.Module, choices: dict[str, Any]) -> dict[str, Tensor]:
    params = _trainable(model)
    return {name: params[name] for name in select(choices.get("adapts", "*"), params, "adapts")}
