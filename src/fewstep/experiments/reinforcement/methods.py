"""The methods of reinforcement learning, with the numbers of the MAML paper's Figures 4 and 5 and Tables 4 and 5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

import fewstep
from fewstep import rl
from fewstep.experiments.option_types import Count, NonNegative, Number, Positive
from fewstep.experiments.reinforcement.experiment import Method


@dataclass(frozen=True)
class TrustRegionMethod(Method):
    """A method whose outer loop is TRPO."""

    max_kl: Positive = 0.01
    """Bound of the KL divergence of the adapted policies in one TRPO step."""
    cg_tasks: Count | None = 5
    """Number of tasks of the meta-batch over which TRPO's Fisher matrix is averaged; None for all. Fewer tasks change
    the direction of a step a little and save most of its time."""

    def outer_optimizer(self, learner: Any) -> torch.optim.Optimizer:
        return rl.TRPO(learner, self.max_kl, cg_tasks=self.cg_tasks)


@dataclass(frozen=True)
class AdaptedMethod(Method):
    """A method that is adapted at test, without inner steps in training."""

    inner_lr: NonNegative = 0.1
    """Step size of the first update in training and at test; that of later updates at test is half of it."""
    test_steps: Number = 3
    """Number of updates at test."""

    def choices(self, policy: torch.nn.Module) -> dict[str, Any]:
        return {"rule": fewstep.GradientDescent(self.inner_lr), "steps": self.steps}


@dataclass(frozen=True)
class GradientMethod(AdaptedMethod):
    """A method with gradient steps in the inner loop."""

    differs: ClassVar[dict[str, Any]] = {}
    """Arguments of `MetaPolicy` that differ from MAML's."""

    steps: Number = 1
    """Number of inner steps in training."""

    def choices(self, policy: torch.nn.Module) -> dict[str, Any]:
        return {**super().choices(policy), **self.differs}


class MAML(GradientMethod, TrustRegionMethod):
    """Policy-gradient steps with the exact meta-gradient (Finn et al. 2017)."""

    name = "maml"
    summary = "MAML: one policy-gradient step, exact meta-gradient, TRPO in the outer loop"
    printed: ClassVar[dict[str, tuple[float, ...]]] = {
        "navigation": (-40.4, -11.7, -3.3, -3.2),
        "cheetah-velocity": (-129.5, -78.6, -66.6, -60.8),
        "cheetah-direction": (-50.7, 293.2, 313.5, 315.7),
        "ant-velocity": (30.6, 96.7, 100.1, 101.4),
        "ant-direction": (8.7, 499.2, 500.7, 499.1),
    }


class FOMAML(GradientMethod, TrustRegionMethod):
    """MAML whose inner gradients are treated as constants."""

    name = "fomaml"
    summary = "first-order MAML: second derivatives dropped"
    differs: ClassVar[dict[str, Any]] = {"adjoint": fewstep.FirstOrder()}


class ANIL(GradientMethod, TrustRegionMethod):
    """MAML whose inner loop adapts only the last layer."""

    name = "anil"
    summary = "ANIL: only the last layer of the policy is adapted"
    differs: ClassVar[dict[str, Any]] = {"adapts": "network.4.*"}


class MetaSGD(GradientMethod, TrustRegionMethod):
    """MAML with learned step sizes, whose initial value is ``inner_lr``."""

    name = "meta-sgd"
    summary = "Meta-SGD: a learned rate for every entry of every parameter"

    def choices(self, policy: torch.nn.Module) -> dict[str, Any]:
        rates = fewstep.LearnedRates(dict(policy.named_parameters()), self.inner_lr, per="parameter")
        return {**super().choices(policy), "rule": rates}


@dataclass(frozen=True)
class Context(GradientMethod, TrustRegionMethod):
    """MAML whose inner loop adapts only a context vector."""

    name = "context"
    summary = "only a context vector, an additional input of the policy, is adapted"
    differs: ClassVar[dict[str, Any]] = {"adapts": "context"}
    printed: ClassVar[dict[str, tuple[float, ...]]] = {
        "navigation": (-42.42, -13.90, -5.17, -3.18),
        "cheetah-direction": (-40.49, -44.08, -38.27, -42.50),
    }
    source: ClassVar[str] = "MAML, Tables 4 and 5 ({figure})"

    context: Number = 10
    """Length of the context vector."""


class EMAML(GradientMethod, TrustRegionMethod):
    """E-MAML (Stadie et al. 2018)."""

    name = "e-maml"
    summary = "E-MAML: the outer loss includes a term for the sampling of the support episodes"
    differs: ClassVar[dict[str, Any]] = {"objective": rl.e_maml}


class DiCE(GradientMethod, TrustRegionMethod):
    """DiCE as the inner loss (Foerster et al. 2018)."""

    name = "dice"
    summary = "the inner loss is DiCE, whose derivatives of all orders are unbiased"
    differs: ClassVar[dict[str, Any]] = {"inner_loss": rl.dice}


class ProMP(GradientMethod):
    """ProMP (Rothfuss et al. 2019), with its own outer optimiser."""

    name = "promp"
    summary = "ProMP: importance ratios in the inner loss, clipped ratios and several steps in the outer loop"
    differs: ClassVar[dict[str, Any]] = {"inner_loss": rl.surrogate, "loss": rl.clipped_surrogate(0.3)}

    def outer_optimizer(self, learner: Any) -> torch.optim.Optimizer:
        return rl.ProMP(learner)


@dataclass(frozen=True)
class Pretrained(AdaptedMethod, TrustRegionMethod):
    """One policy that is trained on all tasks jointly."""

    name = "pretrained"
    summary = "one policy for all tasks, fine-tuned at test"
    printed: ClassVar[dict[str, tuple[float, ...]]] = {
        "cheetah-velocity": (-158.0, -135.4, -128.5, -133.6),
        "cheetah-direction": (-43.0, -24.8, -12.9, 19.6),
        "ant-velocity": (-1.8, 6.1, 8.5, 9.5),
        "ant-direction": (3.2, 1.3, 6.5, 6.9),
    }


@dataclass(frozen=True)
class Oracle(TrustRegionMethod):
    """One policy with the task as an input: a bound on the return after adaptation."""

    name = "oracle"
    summary = "the task is an input of the policy, which is not adapted"
    observes_task: ClassVar[bool] = True
    printed: ClassVar[dict[str, tuple[float, ...]]] = {
        "navigation": (-2.3,),
        "cheetah-velocity": (-54.5,),
        "cheetah-direction": (442.7,),
        "ant-velocity": (107.9,),
        "ant-direction": (524.8,),
    }

    def choices(self, policy: torch.nn.Module) -> dict[str, Any]:
        """Arguments of `MetaPolicy`; the rate is used only if updates at test are requested."""
        return {"rule": fewstep.GradientDescent(0.1), "steps": 0}


class Random(AdaptedMethod):
    """A random initialisation, which is adapted at test without training."""

    name = "random"
    summary = "not trained: a random initialisation, adapted at test"
    printed: ClassVar[dict[str, tuple[float, ...]]] = {"navigation": (-82.7, -58.0, -53.8, -46.8)}

    def choices(self, policy: torch.nn.Module) -> dict[str, Any]:
        """Arguments of `MetaPolicy`: those of MAML, whose one iteration does not change the parameters."""
        return {**super().choices(policy), "steps": 1}

    def outer_optimizer(self, learner: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(learner.parameters(), lr=0.0)
