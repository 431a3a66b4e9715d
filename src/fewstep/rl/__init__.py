"""Meta-reinforcement learning: tasks are environments, support and query sets are sampled episodes."""

from fewstep.rl import environments
from fewstep.rl.acting import Act
from fewstep.rl.actions import ActionMap
from fewstep.rl.advantages import discounted_returns, generalized_advantages, normalized
from fewstep.rl.baselines import linear_baseline, time_baseline
from fewstep.rl.distributions import Categorical, Distribution, Gaussian, MultiCategorical
from fewstep.rl.environment_tasks import EnvironmentTask, EnvironmentTasks
from fewstep.rl.fisher import FisherProduct, mean_kl
from fewstep.rl.losses import clipped_surrogate, dice, e_maml, mean_return, policy_gradient, surrogate
from fewstep.rl.meta_policy import MetaPolicy
from fewstep.rl.outputs import as_distribution, distribution_of
from fewstep.rl.policies import CategoricalPolicy, GaussianPolicy, MultiCategoricalPolicy
from fewstep.rl.promp import ProMP
from fewstep.rl.record import Record
from fewstep.rl.rollouts import Rollouts
from fewstep.rl.trajectories import Trajectories
from fewstep.rl.trpo import TRPO

__all__ = [
    "TRPO",
    "Act",
    "ActionMap",
    "Categorical",
    "CategoricalPolicy",
    "Distribution",
    "EnvironmentTask",
    "EnvironmentTasks",
    "FisherProduct",
    "Gaussian",
    "GaussianPolicy",
    "MetaPolicy",
    "MultiCategorical",
    "MultiCategoricalPolicy",
    "ProMP",
    "Record",
    "Rollouts",
    "Trajectories",
    "as_distribution",
    "clipped_surrogate",
    "dice",
    "discounted_returns",
    "distribution_of",
    "e_maml",
    "environments",
    "generalized_advantages",
    "linear_baseline",
    "mean_kl",
    "mean_return",
    "normalized",
    "policy_gradient",
    "surrogate",
    "time_baseline",
]
