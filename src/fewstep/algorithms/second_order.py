"""Algorithms with exact or implicit meta-gradients: MAML, Meta-SGD, MAML++, implicit MAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fewstep.adaptation import FirstOrder, GradientDescent, Implicit, LearnedRates, Unrolled
from fewstep.algorithms.arguments import RULE_HINT, Model, ModelLoss, adapted_parameters
from fewstep.arguments import check_whole
from fewstep.learner import MetaLearner, Scheduled
from fewstep.learner.checks import check_steps
from fewstep.learner.options import ObjectiveOptions, Options, RuleOptions, refuse
from fewstep.learner.scheduled import at_iteration
from fewstep.objectives import multi_step_loss

if TYPE_CHECKING:
    from typing_extensions import Unpack


def maml(
    model: Model, loss: ModelLoss, inner_lr: float, steps: int = 1, **choices: Unpack[Options]
) -> MetaLearner[Model]:
    """MAML: learn an initialisation from which a few steps of gradient descent solve a task.

    The inner loop is φ_{k+1} = φ_k − α·∇L(φ_k; support) from φ_0 = θ, and the outer loop minimises L(φ_K; query) over
    θ with exact second derivatives (Finn et al. 2017, Algorithm 1 and equation 1).

    Args:
        model: any ``nn.Module``.
        loss: ``loss(model, batch) -> scalar``, for the inner and the outer loop.
        inner_lr: the inner learning rate α.
        steps: the number of inner steps, K.
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner] except ``rule``, such as
            ``adjoint=fewstep.Recomputed()``.

    Returns:
        A learner whose ``parameters()`` are passed to an outer optimiser.

    Raises:
        TypeError: ``rule`` was passed, or an argument has the wrong type.
        ValueError: an argument is out of range, or the model or the combination of arguments is not supported.

    Examples:
        >>> import torch, fewstep
        >>> learner = maml(torch.nn.Linear(1, 1), fewstep.mse, inner_lr=0.01, steps=5)
        >>> optimizer = torch.optim.Adam(learner.parameters())
        >>> learner.meta_loss(fewstep.tasks.Sinusoids(shots=5).sample(25)).backward()
        >>> optimizer.step()
    """
    refuse("maml", choices, rule=RULE_HINT)
    return MetaLearner(model, loss, rule=GradientDescent(inner_lr), steps=steps, **choices)


def meta_sgd(
    model: Model, loss: ModelLoss, inner_lr: float, steps: int = 1, **choices: Unpack[Options]
) -> MetaLearner[Model]:
    """Meta-SGD: MAML with a learned learning rate for every entry of every parameter (Li et al. 2017, Algorithm 1).

    φ_{k+1} = φ_k − α ⊙ ∇L(φ_k; support), where α has the shape of φ and is learned by the outer loop.

    Args:
        model: as for [`maml`][fewstep.maml].
        loss: as for [`maml`][fewstep.maml].
        inner_lr: the initial value of every learning rate.
        steps: the number of inner steps, K.
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner] except ``rule``.

    Raises:
        TypeError: ``rule`` was passed.
        ValueError: as for [`maml`][fewstep.maml].

    Examples:
        >>> import torch, fewstep
        >>> learner = meta_sgd(torch.nn.Linear(3, 1), fewstep.mse, inner_lr=0.01)
        >>> learner.rule.rate("weight").shape
        torch.Size([1, 3])
    """
    refuse("meta_sgd", choices, rule=RULE_HINT)
    rule = LearnedRates(adapted_parameters(model, choices), inner_lr, per="parameter")
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
    """MAML++: MAML with learned rates, a multi-step loss and derivative-order annealing (Antoniou et al. 2018).

    Section 4 of the paper names six changes. Three of them are made here; the cosine schedule of the outer learning
    rate belongs to the optimiser, and per-step normalisation to the model (``norm="per_step"``).

    Args:
        model: as for [`maml`][fewstep.maml].
        loss: as for [`maml`][fewstep.maml].
        inner_lr: the initial value of the learned rates.
        steps: the number of inner steps, K.
        iterations_per_epoch: outer iterations per epoch.
        multi_step_epochs: epochs over which the weights of [`multi_step_loss`][fewstep.multi_step_loss] move to the
            last step; 0 uses the last step from the start.
        first_order_epochs: epochs of first-order training before second derivatives are used; 0 uses them from the
            start.
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner]. ``rule`` and ``objective`` replace those
            of MAML++; ``adjoint`` is used once the first-order epochs are over.

    Raises:
        ValueError: as for [`maml`][fewstep.maml].

    Examples:
        >>> import torch, fewstep
        >>> learner = maml_plus_plus(torch.nn.Linear(1, 1), fewstep.mse, inner_lr=0.01, steps=5)
        >>> learner.rule.rates["weight"].shape  # a rate for each of the five steps
        torch.Size([5])
    """
    check_whole("maml_plus_plus", iterations_per_epoch=iterations_per_epoch)
    check_whole("maml_plus_plus", 0, multi_step_epochs=multi_step_epochs, first_order_epochs=first_order_epochs)
    check_steps(steps)
    choices.setdefault("rule", LearnedRates(adapted_parameters(model, choices), inner_lr, per="tensor", steps=steps))
    choices.setdefault(
        "objective",
        Scheduled(lambda i: multi_step_loss.annealed(steps, i // iterations_per_epoch, multi_step_epochs)),
    )
    exact = choices.get("adjoint", Unrolled())
    second_order_from = first_order_epochs * iterations_per_epoch
    annealed = Scheduled(lambda i: FirstOrder() if i < second_order_from else at_iteration(exact, i))
    options: Any = {**choices, "adjoint": annealed}
    return MetaLearner(model, loss, steps=steps, **options)


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
    """Implicit MAML: meta-gradients from the solution of the inner problem alone (Rajeswaran et al. 2019, Algorithm 2).

    The inner problem is φ = argmin L(φ; support) + λ/2·‖φ − θ‖², and dφ/dθ = (I + ∇²L(φ)/λ)⁻¹ is applied by conjugate
    gradients. Memory does not depend on the number of inner steps.

    Args:
        model: as for [`maml`][fewstep.maml].
        loss: as for [`maml`][fewstep.maml].
        inner_lr: the learning rate of gradient descent on the inner problem. It must be below 2/(λ + c), where c is the
            largest eigenvalue of ∇²L, or the inner loop diverges.
        steps: the number of inner steps. Use enough to come close to the minimum.
        regularization: λ.
        cg_steps: iterations of conjugate gradients.
        damping: is added to λ in the linear system; see [`Implicit`][fewstep.Implicit].
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner] except ``rule`` and ``adjoint``.

    Raises:
        TypeError: ``rule`` or ``adjoint`` was passed.
        ValueError: ``regularization`` is not positive, ``damping`` is negative, or as for [`maml`][fewstep.maml].

    Examples:
        >>> import torch, fewstep
        >>> learner = imaml(torch.nn.Linear(1, 1), fewstep.mse, inner_lr=0.01, steps=20, regularization=2.0)
        >>> learner.meta_loss(fewstep.tasks.Sinusoids(shots=10).sample(5)).backward()
    """
    refuse("imaml", choices, adjoint="for another adjoint use fewstep.maml(adjoint=...)")
    return maml(model, loss, inner_lr, steps, adjoint=Implicit(regularization, cg_steps, damping), **choices)
