"""Algorithms without second derivatives: first-order MAML, Reptile, Meta-LSTM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fewstep.adaptation import FirstOrder, MetaLSTM, Rule
from fewstep.algorithms.arguments import Model, ModelLoss, adapted_parameters
from fewstep.algorithms.second_order import maml
from fewstep.learner import MetaLearner
from fewstep.learner.checks import check_steps
from fewstep.learner.options import AdaptsOptions, ObjectiveOptions, RuleOptions, refuse
from fewstep.objectives import reptile_loss

if TYPE_CHECKING:
    from typing_extensions import Unpack


def fomaml(
    model: Model, loss: ModelLoss, inner_lr: float, steps: int = 1, **choices: Unpack[ObjectiveOptions]
) -> MetaLearner[Model]:
    """First-order MAML: MAML that ignores second derivatives (Finn et al. 2017, section 5.2).

    The inner gradients are treated as constants, so the meta-gradient is ∇L(φ_K; query).

    Args:
        model: as for [`maml`][fewstep.maml].
        loss: as for [`maml`][fewstep.maml].
        inner_lr: the inner learning rate α.
        steps: the number of inner steps, K.
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner] except ``rule`` and ``adjoint``.

    Raises:
        TypeError: ``rule`` or ``adjoint`` was passed.
        ValueError: as for [`maml`][fewstep.maml].

    Examples:
        >>> import torch, fewstep
        >>> learner = fomaml(torch.nn.Linear(1, 1), fewstep.mse, inner_lr=0.01, steps=5)
        >>> learner.adjoint
        FirstOrder()
    """
    refuse("fomaml", choices, adjoint="for another adjoint use fewstep.maml(adjoint=...)")
    return maml(model, loss, inner_lr, steps, adjoint=FirstOrder(), **choices)


def reptile(
    model: Model,
    loss: ModelLoss,
    rule: Rule,
    steps: int = 5,
    *,
    inner_batch: int | None = None,
    **choices: Unpack[AdaptsOptions],
) -> MetaLearner[Model]:
    """Reptile: move θ towards the parameters after training on a task (Nichol et al. 2018, Algorithm 2).

    The meta-gradient is θ − φ_K; no second derivatives and no query set are needed. With an outer
    ``torch.optim.SGD(lr=ε)`` the update is θ ← θ + ε·mean(φ_K − θ).

    Args:
        model: as for [`maml`][fewstep.maml].
        loss: as for [`maml`][fewstep.maml].
        rule: the inner update. The paper uses Adam, the authors' code
            ``CarriedAdam(model.named_parameters(), 1e-3, betas=(0.0, 0.999))``.
        steps: the number of inner steps, K. With one step, Reptile minimises the joint loss of all tasks.
        inner_batch: examples of the support set per inner step; consecutive steps use different examples. If ``None``,
            every step uses all of them, and the update no longer rewards that a step on some examples of a task
            improves the loss on its other examples (section 5.1).
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner] except ``adjoint`` and ``objective``.

    Raises:
        TypeError: ``adjoint`` or ``objective`` was passed.
        ValueError: as for [`maml`][fewstep.maml].

    Examples:
        >>> import torch, fewstep
        >>> model = torch.nn.Linear(1, 1)
        >>> rule = fewstep.CarriedAdam(model.named_parameters(), lr=1e-3, betas=(0.0, 0.999))
        >>> learner = reptile(model, fewstep.mse, rule, steps=5, inner_batch=5)
        >>> learner.meta_loss(fewstep.tasks.Sinusoids(shots=10).sample(25)).backward()
    """
    check_steps(steps)
    if steps == 0:
        raise ValueError("reptile needs at least one inner step: θ − φ_K is 0 for steps=0.")
    instead = "use fewstep.MetaLearner"
    refuse("reptile", choices, adjoint=instead, objective=instead)
    defining: Any = {"adjoint": FirstOrder(), "objective": reptile_loss, "inner_batch": inner_batch}
    return MetaLearner(model, loss, rule=rule, steps=steps, **defining, **choices)


def meta_lstm(
    model: Model, loss: ModelLoss, steps: int = 12, *, hidden: int = 20, **choices: Unpack[RuleOptions]
) -> MetaLearner[Model]:
    """Meta-LSTM: a learned optimiser that all parameters share (Ravi and Larochelle 2017, Algorithm 1).

    First order: the inner gradients are treated as constants. The paper trains with Adam at a learning rate of 1e-3 and
    clips the gradient norm at 0.25 (``fewstep.fit(..., clip_norm=0.25)``).

    Args:
        model: as for [`maml`][fewstep.maml]. Its parameters are the learned initial cell state.
        loss: as for [`maml`][fewstep.maml].
        steps: the number of inner steps, K, each on the whole support set; the paper uses 12 for one shot and 8 for
            five.
        hidden: the number of hidden units of the first LSTM.
        **choices: any other argument of [`MetaLearner`][fewstep.MetaLearner], such as another
            ``rule=fewstep.MetaLSTM(...)``.

    Raises:
        ValueError: as for [`maml`][fewstep.maml] and [`MetaLSTM`][fewstep.MetaLSTM].

    Examples:
        >>> import torch, fewstep
        >>> learner = meta_lstm(torch.nn.Linear(1, 1), fewstep.mse, steps=5)
        >>> learner.rule
        MetaLSTM(hidden=20)
    """
    choices.setdefault("rule", MetaLSTM(hidden).to(next(iter(adapted_parameters(model, choices).values()))))
    choices.setdefault("adjoint", FirstOrder())
    return MetaLearner(model, loss, steps=steps, **choices)
