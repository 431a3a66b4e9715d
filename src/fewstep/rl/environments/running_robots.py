"""HalfCheetah and Ant with tasks of direction and velocity (Finn et al. 2017, section 5.3)."""

from __future__ import annotations

from fewstep.rl.environments.goals import Direction, Velocity
from fewstep.rl.environments.robots import Ant, HalfCheetah
from fewstep.rl.environments.running import RunningTasks


class HalfCheetahDirection(RunningTasks):
    """Copies of HalfCheetah that run forwards or backwards (MAML, section 5.3).

    A task is a direction, d = +1 or −1. The reward is d·v − control cost, with the velocity v in m/s.

    Physics, observations and initial states are bit-identical to those of Gymnasium's v5 environment: ``reset(seed=s)``
    starts copy i as Gymnasium's environment starts with seed s + i. Rewards follow one of two conventions:

    * ``"gymnasium"``: the terms and weights of v5, with the task's term in place of the forward reward;
    * ``"paper"``: the formulas of Finn et al. 2017 and its code. The robots and the measurement of the velocity are
      Gymnasium's, so returns are only roughly comparable with the paper's.

    A copy whose episode has ended is not simulated: until it is reset, it returns its last observation, reward 0 and
    the same ``terminated`` and ``truncated``. Unpickling recreates the environment.

    Args:
        num_envs: the number of copies.
        rewards: ``"gymnasium"`` or ``"paper"``.
        horizon: the number of control steps, of 0.05 s each, after which an episode is truncated.
        observe_task: whether the task is appended to the observation, as for the oracle baseline.
        threads: the number of threads that step the copies, which does not change the results.
        render_mode: ``"rgb_array"`` if ``render`` is to return images, which needs an OpenGL renderer.

    Raises:
        ValueError: an argument is invalid, or tasks or actions have the wrong shape or are not finite.
        RuntimeError: it is reset before its tasks are set, stepped before it is reset, or a simulation is unstable.

    Examples:
        >>> import numpy as np
        >>> import torch
        >>> cheetahs = HalfCheetahDirection(num_envs=4, rewards="paper")
        >>> cheetahs.set_tasks(cheetahs.sample_tasks(4, torch.Generator().manual_seed(0)))
        >>> observations, _ = cheetahs.reset(seed=0)
        >>> observations, rewards, terminated, truncated, infos = cheetahs.step(np.zeros((4, 6), dtype=np.float32))
        >>> observations.shape, rewards.shape
        ((4, 17), (4,))
    """

    robot = HalfCheetah()
    goal = Direction()


class HalfCheetahVelocity(RunningTasks):
    """Copies of HalfCheetah that run at a given velocity (MAML, section 5.3).

    A task is a velocity v* from U[0, 2] m/s. The reward is −abs(v − v*) − control cost. Arguments, conventions and
    errors are those of [`HalfCheetahDirection`][fewstep.rl.environments.HalfCheetahDirection].

    Examples:
        >>> import torch
        >>> HalfCheetahVelocity(num_envs=4).sample_tasks(4, torch.Generator().manual_seed(0)).shape
        torch.Size([4, 1])
    """

    robot = HalfCheetah()
    goal = Velocity(high=2.0)


class AntDirection(RunningTasks):
    """Copies of Ant that run along or against the x axis (MAML, section 5.3).

    A task is a direction, d = +1 or −1. The reward is d·v + survival bonus − control and contact costs. Arguments,
    conventions and errors are those of [`HalfCheetahDirection`][fewstep.rl.environments.HalfCheetahDirection].

    Examples:
        >>> AntDirection(num_envs=4).single_observation_space.shape
        (105,)
    """

    robot = Ant()
    goal = Direction()


class AntVelocity(RunningTasks):
    """Copies of Ant that run at a given velocity along the x axis (MAML, section 5.3).

    A task is a velocity v* from U[0, 3] m/s. The reward is 1 − abs(v − v*) + survival bonus − control and contact
    costs. Arguments, conventions and errors are those of
    [`HalfCheetahDirection`][fewstep.rl.environments.HalfCheetahDirection].

    Examples:
        >>> AntVelocity(num_envs=4, observe_task=True).single_observation_space.shape
        (106,)
    """

    robot = Ant()
    goal = Velocity(high=3.0, bonus=1.0)
