"""Any Gymnasium environment as tasks: copies against plain environments, and what is said when one fails."""

import os
from functools import partial

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium", reason='needs Gymnasium: pip install "fewstep[rl]"')

from gymnasium.spaces import Box, Discrete  # noqa: E402
from gymnasium.vector import VectorEnv  # noqa: E402
from gymnasium.wrappers.vector import RecordEpisodeStatistics  # noqa: E402

from fewstep.rl.environments import SingleTask  # noqa: E402
from fewstep.rl.environments.base import TaskEnvironment  # noqa: E402
from fewstep.rl.environments.gymnasium_tasks import EnvironmentFailed, GymnasiumTasks  # noqa: E402


class Line(gymnasium.Env):
    """A point on a line: the observation is where it is, the reward minus how far that is from the goal.

    It ends 0.25 from the origin; the goals 1, 2, ... make it misbehave.
    """

    action_space = Box(-1, 1, (1,), np.float32)
    goal = 0.0

    def __init__(self, size=1):
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-0.01, 0.01)
        if self.goal == 1:
            raise KeyError("no such 100% goal")
        return self.observation(), {}

    def step(self, action):
        if self.goal == 2:
            raise ZeroDivisionError("division by zero")
        if self.goal == 3:
            os._exit(9)
        self.position += 0.1 * float(action[0])
        reward = np.nan if self.goal == 4 else -abs(self.position - self.goal)
        return self.observation(), reward, abs(self.position) > 0.25, False, {"goal": self.goal}

    def observation(self):
        numbers = [np.nan if self.goal == 5 else self.position] * (2 if self.goal == 6 else 1)
        return np.array(numbers, dtype=np.float32)


def set_goal(line, task):
    line.unwrapped.goal = task.item()


def sample_goals(n, generator):
    return torch.rand(n, 1, generator=generator) - 0.5


def lines(num_envs=3, goals=None, processes=False, make=Line):
    copies = GymnasiumTasks(make, sample_goals, set_goal, num_envs, processes=processes)
    drawn = copies.sample_tasks(num_envs, torch.Generator().manual_seed(0))
    copies.set_tasks(drawn if goals is None else torch.tensor(goals).view(-1, 1))
    return copies


ACTIONS = np.array([[1.0], [-0.2], [0.3]], dtype=np.float32)


@pytest.mark.parametrize("processes", [False, True])
def test_copies_are_plain_environments(processes):
    copies = lines(goals=[0.1, 0.2, -0.3], processes=processes)
    assert isinstance(copies, VectorEnv)
    assert isinstance(copies, TaskEnvironment)
    observations, _ = copies.reset(seed=4)
    plain = [Line() for _ in range(3)]
    for index, (line, goal) in enumerate(zip(plain, (0.1, 0.2, -0.3), strict=True)):
        line.goal = torch.tensor(goal).item()
        np.testing.assert_array_equal(observations[index], line.reset(seed=4 + index)[0])
    for step in range(1, 6):
        observations, rewards, terminated, truncated, infos = copies.step(ACTIONS)
        assert terminated.tolist() == [step >= 3, False, False]
        assert not truncated.any()
        for index, line in enumerate(plain):
            if index == 0 and step > 3:
                assert rewards[0] == 0
            else:
                expected = line.step(ACTIONS[index])
                assert rewards[index] == expected[1]
                assert infos["goal"][index] == line.goal
            np.testing.assert_array_equal(observations[index], line.observation())
    copies.close()


def test_tasks_hold_from_the_next_reset_on():
    copies = lines(goals=[0.0, 0.0, 0.0])
    copies.reset(seed=0)
    copies.set_tasks(torch.full((3, 1), 0.5))
    assert copies.step(ACTIONS)[4]["goal"].tolist() == [0, 0, 0]
    copies.reset(options={"reset_mask": np.array([True, False, False])})
    assert copies.step(ACTIONS)[4]["goal"].tolist() == [0.5, 0, 0]


def test_time_limits_truncate():
    copies = lines(2, make=lambda: gymnasium.wrappers.TimeLimit(Line(), 2))
    copies.reset(seed=0)
    assert copies.step(ACTIONS[1:])[3].tolist() == [False, False]
    for _ in range(2):
        assert copies.step(ACTIONS[1:])[3].tolist() == [True, True]


def test_discrete_actions():
    def set_length(cart_pole, task):
        cart_pole.unwrapped.length = task.item()

    make = partial(gymnasium.make, "CartPole-v1")
    copies = GymnasiumTasks(make, lambda n, g: 0.1 + torch.rand(n, 1, generator=g), set_length, 2)
    assert copies.single_action_space == Discrete(2)
    copies.set_tasks(torch.tensor([[0.5], [0.5]]))
    copies.reset(seed=1)
    plain = make()
    plain.reset(seed=2)
    for action in (0, 1, 1, 0):
        observations, rewards, *_ = copies.step(np.array([1, action]))
        expected, reward, *_ = plain.step(action)
        np.testing.assert_array_equal(observations[1], expected)
        assert rewards[1] == reward


@pytest.mark.filterwarnings("ignore:.*(infinity|not having a spec).*:UserWarning")
def test_gymnasiums_checker_and_statistics_pass():
    from gymnasium.utils.env_checker import check_env

    check_env(SingleTask(lines(1), torch.tensor([0.2])))
    copies = RecordEpisodeStatistics(lines())
    copies.reset(seed=0)
    for _ in range(3):
        infos = copies.step(ACTIONS)[4]
    assert infos["episode"]["l"].tolist() == [3, 0, 0]
    with pytest.raises(ValueError, match="num_envs=1; got num_envs=3"):
        SingleTask(lines(3), torch.tensor([0.2]))


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (1.0, r"Copy 1 \(task \[1.0\]\): reset raised KeyError: 'no such 100% goal'"),
        (2.0, r"Copy 1 \(task \[2.0\]\): step raised ZeroDivisionError: division by zero"),
        (3.0, r"Copy 1 \(task \[3.0\]\): its process ended with exit code 9"),
        (4.0, r"Copy 1 \(task \[4.0\]\): its reward is nan for the action \[-0.2"),
        (5.0, r"Copy 1 \(task \[5.0\]\): its observation is not finite: \[nan\]"),
        (6.0, r"Copy 1 \(task \[6.0\]\): its observation has shape \(2,\); expected that of its space, \(1,\)"),
    ],
)
def test_a_copy_that_fails_is_named_with_its_task(goal, message, processes):
    if goal == 3 and not processes:
        pytest.skip("it would end this process")
    copies = lines(goals=[0.0, goal, 0.0], processes=processes)
    with pytest.raises(EnvironmentFailed, match=message):
        reset_and_step(copies)
    assert copies.closed


def reset_and_step(copies):
    copies.reset(seed=0)
    copies.step(ACTIONS)


@pytest.mark.parametrize("processes", [False, True])
def test_a_copy_with_other_spaces_is_named(processes, tmp_path):
    with pytest.raises(EnvironmentFailed, match=r"Copy \d .*: its spaces are"):
        lines(processes=processes, make=partial(_line_of_growing_size, tmp_path))


def _line_of_growing_size(folder):
    size = 1 + len(list(folder.iterdir()))
    (folder / str(size)).touch()
    return Line(size)


def test_bad_input_is_named():
    copies = lines()
    with pytest.raises(ValueError, match=r"one task per copy, shape \[3, numbers\]; got shape \[2, 1\]"):
        copies.set_tasks(torch.ones(2, 1))
    copies.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(3, 1\); got \(2, 1\)"):
        copies.step(ACTIONS[:2])
    with pytest.raises(ValueError, match=r"must return shape \[4, numbers\]; got \[3, 1\]"):
        GymnasiumTasks(Line, lambda n, g: torch.ones(3, 1), set_goal, 1).sample_tasks(4, torch.Generator())
    with pytest.raises(RuntimeError, match="the copies have no tasks"):
        GymnasiumTasks(Line, sample_goals, set_goal, 1).reset()
    with pytest.raises(TypeError, match="observation space must be a Box"):
        GymnasiumTasks(partial(gymnasium.make, "FrozenLake-v1"), sample_goals, set_goal, 1)


def test_meta_world(monkeypatch):
    metaworld = pytest.importorskip("metaworld", reason='needs Meta-World: pip install "fewstep[metaworld]"')
    monkeypatch.setattr(metaworld, "_N_GOALS", 3)  # it simulates every environment to draw its goals
    from fewstep.rl.environments import meta_world

    copies = meta_world("ML1", 2, task_name="reach-v3", horizon=3)
    tasks = copies.sample_tasks(2, torch.Generator().manual_seed(0))
    assert tasks.shape == (2, 1)
    copies.set_tasks(tasks)
    observations, _ = copies.reset(seed=0)
    assert observations.shape == (2, 39)
    assert not observations[:, -3:].any()  # the goal is hidden
    for _ in range(3):
        _, rewards, _, truncated, infos = copies.step(np.full((2, 4), 0.5, dtype=np.float32))
    assert truncated.all()
    assert rewards[0] != rewards[1]
    assert infos["success"].shape == (2,)


def test_meta_world_says_what_it_lacks(monkeypatch):
    from fewstep.rl.environments import meta_world

    monkeypatch.setitem(__import__("sys").modules, "metaworld", None)
    with pytest.raises(ModuleNotFoundError, match=r"fewstep\[metaworld\]"):
        meta_world("ML10", 2)
