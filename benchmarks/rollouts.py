"""Control steps per second of HalfCheetah and Ant, side by side in one run.

Three contestants on one core: MuJoCo itself (``mj_step`` on one copy after the other, each through all of its actions,
the fastest that Python can ask for), this library's vector environment, and Gymnasium's ``SyncVectorEnv`` of its own v5
environments. They take the same random actions from the same starts, carry on where they were from turn to turn, and
are checked to end in the same state, bit for bit. Before that, on several threads: this library's environment; whole
episodes of policies, one for each of 40 tasks, with all that becomes of them; and an outer iteration of HalfCheetah by
direction at the MAML paper's size (40 tasks × 20 episodes × 200 steps, before and after adaptation, and TRPO's step).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from measuring import console, in_turn, parse_on_allocator, print_header, speedup, use_one_core
from numpy.typing import NDArray
from rich.table import Table

import fewstep
from fewstep import rl
from fewstep.rl.environments.physics import STATE_PARTS, Floats, Mask, Physics
from fewstep.rl.environments.robots import Ant
from fewstep.rl.environments.running import RunningTasks
from fewstep.rl.environments.running_robots import AntDirection, HalfCheetahDirection

LIMIT, OURS, GYMNASIUM = "MuJoCo alone", "fewstep", "Gymnasium's SyncVectorEnv"


class UprightAnt(Ant):
    """Goes on when it has fallen, so that all contestants simulate as many steps."""

    def fallen(self, physics: Physics) -> Mask:
        return np.zeros(len(physics.qpos), dtype=np.bool_)


class UprightAntDirection(AntDirection):
    robot = UprightAnt()


@dataclass(frozen=True)
class Setting:
    environment: type[RunningTasks]
    gymnasium_name: str
    gymnasium_options: dict[str, bool]
    copies: int


SETTINGS = {
    "HalfCheetah": Setting(HalfCheetahDirection, "HalfCheetah-v5", {}, 800),
    "Ant": Setting(UprightAntDirection, "Ant-v5", {"terminate_when_unhealthy": False}, 200),
}


@dataclass(frozen=True)
class Contestant:
    advance: Callable[[], None]  # every copy takes all actions
    positions: Callable[[], Floats]  # where the copies are, ``[copies, nq]``


def started(setting: Setting, threads: int = 1) -> RunningTasks:
    environment = setting.environment(setting.copies, horizon=1_000_000, threads=threads)
    environment.set_tasks(torch.ones(setting.copies, 1))
    environment.reset(seed=0)
    return environment


def ours(setting: Setting, actions: NDArray[np.float32], threads: int = 1) -> Contestant:
    environment = started(setting, threads)

    def advance() -> None:
        for action in actions:
            environment.step(action)

    return Contestant(advance, lambda: environment.physics.qpos)


def gymnasiums(setting: Setting, actions: NDArray[np.float32]) -> Contestant:
    def make() -> gymnasium.Env[Floats, NDArray[np.float32]]:
        options = {"max_episode_steps": 1_000_000, "disable_env_checker": True, **setting.gymnasium_options}
        return gymnasium.make(setting.gymnasium_name, **options)

    environment = SyncVectorEnv([make] * setting.copies, autoreset_mode=AutoresetMode.DISABLED)
    environment.reset(seed=0)

    def advance() -> None:
        for action in actions:
            environment.step(action)

    return Contestant(advance, lambda: np.stack([copy.unwrapped.data.qpos for copy in environment.envs]))


def mujoco_alone(setting: Setting, actions: NDArray[np.float32]) -> Contestant:
    physics = started(setting).physics
    model, frame_skip, data = physics.model, physics.frame_skip, mujoco.MjData(physics.model)
    actions_of_copies = np.ascontiguousarray(actions.transpose(1, 0, 2))

    def advance() -> None:
        for state, actions_of_copy in zip(physics.states, actions_of_copies, strict=True):
            mujoco.mj_setState(model, data, state, STATE_PARTS)
            for action in actions_of_copy:
                data.ctrl[:] = action
                mujoco.mj_step(model, data, frame_skip)
            mujoco.mj_getState(model, data, state, STATE_PARTS)

    return Contestant(advance, lambda: physics.qpos)


def measure(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Seconds for all actions, one number per round; then checks that all are in the same state."""
    times = in_turn({name: contestant.advance for name, contestant in contestants.items()}, rounds, seconds=0.0)
    first, *others = contestants
    for name in others:
        if not np.array_equal(contestants[first].positions(), contestants[name].positions()):
            raise RuntimeError(f"{name} and {first} are not in the same state")
    return times


def print_rates(title: str, times: dict[str, list[float]], steps: int, reference: str) -> None:
    table = Table("", "control steps/s", "best round", f"× {reference}", title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in times.items():
        rates = [f"{steps / seconds:,.0f}" for seconds in (statistics.median(values), min(values))]
        table.add_row(name, *rates, f"{speedup(times, name, reference):.3f}")
    console.print(table)


def random_actions(setting: Setting, steps: int) -> NDArray[np.float32]:
    """``[steps, copies, actuators]``."""
    actuators = started(setting).physics.model.nu
    return np.random.default_rng(0).uniform(-1, 1, (steps, setting.copies, actuators)).astype(np.float32)


def compare_on_one_core(name: str, steps: int, rounds: int) -> dict[str, list[float]]:
    setting = SETTINGS[name]
    actions = random_actions(setting, steps)
    contestants = {
        LIMIT: mujoco_alone(setting, actions),
        OURS: ours(setting, actions),
        GYMNASIUM: gymnasiums(setting, actions),
    }
    times = measure(contestants, rounds)
    print_rates(f"{name}, {setting.copies} copies, one core", times, steps * setting.copies, LIMIT)
    console.print(f"fewstep is {speedup(times, OURS, GYMNASIUM):.2f} × as fast as Gymnasium")
    return times


def compare_threads(name: str, steps: int, rounds: int, threads: int) -> dict[str, list[float]]:
    setting = SETTINGS[name]
    actions = random_actions(setting, steps)
    times = measure({"1 thread": ours(setting, actions), f"{threads} threads": ours(setting, actions, threads)}, rounds)
    print_rates(f"{name}, {setting.copies} copies, fewstep", times, steps * setting.copies, "1 thread")
    return times


def learner_of(setting: Setting, tasks: int, threads: int) -> rl.MetaPolicy:
    environment = setting.environment(setting.copies, rewards="paper", horizon=200, threads=threads)
    spaces = environment.single_observation_space, environment.single_action_space
    policy = rl.GaussianPolicy(*(space.shape[0] for space in spaces))
    rollouts = rl.Rollouts(environment, setting.copies // tasks)
    return rl.MetaPolicy(policy, rollouts, rule=fewstep.GradientDescent(0.1), chunk=5)


def compare_policies(name: str, rounds: int, threads: int, tasks: int = 40) -> dict[str, list[float]]:
    setting = SETTINGS[name]

    def sampling(threads: int) -> Callable[[], object]:
        torch.manual_seed(0)
        learner = learner_of(setting, tasks, threads)
        drawn = rl.EnvironmentTasks(learner.rollouts.environment).sample(tasks, fewstep.tasks.generator(0, 0)).support
        params = {name: value.detach().expand(tasks, *value.shape) for name, value in learner.model.named_parameters()}
        return lambda: learner.rollouts(learner.model, params, drawn)

    times = in_turn({"1 thread": sampling(1), f"{threads} threads": sampling(threads)}, rounds, seconds=0.0)
    title = f"{name}, {setting.copies} episodes of 200 steps, a policy for each of {tasks} tasks"
    print_rates(title, times, 200 * setting.copies, "1 thread")
    return times


def time_iteration(rounds: int, threads: int, tasks: int = 40) -> list[float]:
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    learner = learner_of(SETTINGS["HalfCheetah"], tasks, threads)
    optimizer = rl.TRPO(learner, cg_tasks=5)
    drawn = rl.EnvironmentTasks(learner.rollouts.environment).sample(tasks, fewstep.tasks.generator(0, 0))
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        optimizer.meta_step(drawn)
        times.append(time.perf_counter() - began)
    torch.set_num_threads(1)
    console.print(
        f"An outer iteration of HalfCheetah by direction at the MAML paper's size, {threads} threads: median "
        f"{statistics.median(times):.1f} s, best {min(times):.1f} s"
    )
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="turns that each has (default 9)")
    parser.add_argument("--steps", type=int, default=10, help="control steps of every copy in a turn (default 10)")
    parser.add_argument("--threads", type=int, default=2, help="also on so many threads and cores (default 2)")
    parser.add_argument("--robots", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the seconds of all turns there")
    options = parse_on_allocator(parser)
    results = {}
    torch.set_num_threads(1)
    print_header(f"Environment steps, MuJoCo {mujoco.__version__}, Gymnasium {gymnasium.__version__}")
    if options.threads > 1:  # first, while the process may run on all cores
        for name in options.robots:
            results[f"{name}, threads"] = compare_threads(name, options.steps, options.rounds, options.threads)
        few = max(1, options.rounds // 3)
        results["policies"] = compare_policies("HalfCheetah", few, options.threads)
        results["iteration"] = {f"{options.threads} threads": time_iteration(few, options.threads)}
    use_one_core()
    for name in options.robots:
        results[name] = compare_on_one_core(name, options.steps, options.rounds)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
