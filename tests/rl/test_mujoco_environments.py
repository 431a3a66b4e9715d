"""HalfCheetah and Ant by task: Gymnasium's own environments, recomputed copy by copy, are the reference."""

import subprocess
import sys

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium", reason='needs Gymnasium: pip install "fewstep[rl]"')
pytest.importorskip("mujoco", reason='needs MuJoCo: pip install "fewstep[rl]"')

from gymnasium.utils.env_checker import check_env  # noqa: E402
from gymnasium.vector import AutoresetMode, VectorEnv  # noqa: E402
from gymnasium.wrappers.vector import RecordEpisodeStatistics  # noqa: E402

from fewstep.rl.environments import SingleTask  # noqa: E402
from fewstep.rl.environments.base import TaskEnvironment  # noqa: E402
from fewstep.rl.environments.running_robots import (  # noqa: E402
    AntDirection,
    AntVelocity,
    HalfCheetahDirection,
    HalfCheetahVelocity,
)

ALL = [HalfCheetahDirection, HalfCheetahVelocity, AntDirection, AntVelocity]


def made(environment, num_envs=3, tasks=None, seed=0, **options):
    """An environment with tasks, after a reset."""
    copies = environment(num_envs, **options)
    drawn = copies.sample_tasks(num_envs, torch.Generator().manual_seed(0))
    copies.set_tasks(drawn if tasks is None else torch.tensor(tasks).view(num_envs, 1))
    copies.reset(seed=seed)
    copies.action_space.seed(0)
    return copies


@pytest.fixture(params=["HalfCheetah-v5", "Ant-v5"])
def robot(request):
    """The name of Gymnasium's environment, and ours."""
    pytest.importorskip("imageio", reason="Gymnasium's MuJoCo environments need imageio")
    return request.param, {"HalfCheetah-v5": HalfCheetahDirection, "Ant-v5": AntDirection}[request.param]


@pytest.mark.parametrize("threads", [1, 3])
def test_gymnasiums_numbers_bit_for_bit(robot, threads):
    name, environment = robot
    theirs = gymnasium.make_vec(
        name, 4, vectorization_mode="sync", vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED}
    )
    ours = made(environment, 4, tasks=[1.0] * 4, horizon=1000, threads=threads)
    first, _ = ours.reset(seed=7)
    expected, _ = theirs.reset(seed=7)
    np.testing.assert_array_equal(first, expected)
    for _ in range(200):
        actions = ours.action_space.sample()
        *results, infos = ours.step(actions)
        *expected, expected_infos = theirs.step(actions)
        for result, reference in zip(results, expected, strict=True):
            np.testing.assert_array_equal(result, reference)
        np.testing.assert_array_equal(infos["x_velocity"], expected_infos["x_velocity"])
        ended = results[2]
        if ended.any():
            again, _ = ours.reset(options={"reset_mask": ended})
            expected, _ = theirs.reset(options={"reset_mask": ended})
            np.testing.assert_array_equal(again, expected)
    ours.close()
    theirs.close()


@pytest.mark.parametrize(("environment", "low", "high"), list(zip(ALL, [-1, 0, -1, 0], [1, 2, 1, 3], strict=True)))
def test_draws_the_papers_tasks(environment, low, high):
    copies = environment(1)
    tasks = copies.sample_tasks(2000, torch.Generator().manual_seed(1))
    assert tasks.shape == (2000, 1)
    assert tasks.dtype == torch.float32
    if environment in (HalfCheetahDirection, AntDirection):
        assert set(tasks.flatten().tolist()) == {-1.0, 1.0}
    assert low <= tasks.min() < low + 0.1
    assert high - 0.1 < tasks.max() <= high
    assert tasks.mean().item() == pytest.approx((low + high) / 2, abs=0.1)
    assert torch.equal(tasks, copies.sample_tasks(2000, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("rewards", ["gymnasium", "paper"])
@pytest.mark.parametrize("environment", ALL)
def test_rewards_are_the_formulas(environment, rewards):
    copies = made(environment, 3, rewards=rewards)
    tasks = copies.sample_tasks(3, torch.Generator().manual_seed(0)).double().numpy()[:, 0]
    standing = np.ones(3, dtype=bool)
    for _ in range(20):
        actions = copies.action_space.sample()
        observations, result, terminated, _, infos = copies.step(actions)
        velocity = infos["x_velocity"]
        squared = np.square(actions.astype(np.float64)).sum(1)
        if environment in (HalfCheetahDirection, HalfCheetahVelocity):
            cost = {"gymnasium": 0.1, "paper": 0.05}[rewards] * squared
        else:  # as far as observed: the world feels no force
            contact = np.square(observations[:, 27:105]).sum(1)
            assert copies.single_observation_space.shape == (105,)
            control, survival = {"gymnasium": (0.5, 1.0), "paper": (0.005, 0.05)}[rewards]
            cost = control * squared + 0.0005 * contact - survival * ~terminated
        if environment is HalfCheetahVelocity:
            expected = -np.abs(velocity - tasks) - cost
        elif environment is AntVelocity:
            expected = 1 - np.abs(velocity - tasks) - cost
        else:
            expected = tasks * velocity - cost
        np.testing.assert_allclose(result, standing * expected, rtol=1e-6, atol=1e-6)
        standing &= ~terminated


def test_velocity_is_the_displacement_over_the_control_interval():
    copies = made(HalfCheetahVelocity, 2)
    before = copies.physics.qpos[:, 0].copy()
    *_, infos = copies.step(copies.action_space.sample())
    np.testing.assert_allclose(infos["x_velocity"], (copies.physics.qpos[:, 0] - before) / 0.05)


def test_the_oracle_observes_its_task():
    plain = made(HalfCheetahVelocity)
    oracle = made(HalfCheetahVelocity, observe_task=True)
    tasks = plain.sample_tasks(3, torch.Generator().manual_seed(0)).numpy()
    actions = plain.action_space.sample()
    observations, seen = plain.step(actions)[0], oracle.step(actions)[0]
    np.testing.assert_array_equal(seen, np.concatenate((observations, tasks), 1))
    assert oracle.single_observation_space.shape == (18,)
    assert oracle.observation_space.contains(seen)


def test_tasks_hold_from_the_next_reset_on():
    copies = made(HalfCheetahDirection, 2, tasks=[1.0, 1.0], observe_task=True)
    copies.set_tasks(-torch.ones(2, 1))
    assert copies.step(copies.action_space.sample())[0][:, -1].tolist() == [1, 1]
    observations, _ = copies.reset(options={"reset_mask": np.array([False, True])})
    assert observations[:, -1].tolist() == [1, -1]


def test_ended_copies_stand_still_until_they_are_reset():
    copies = made(AntDirection, 2, horizon=5)
    copies.physics.qpos[1, 2] = 5.0  # it flies
    actions = copies.action_space.sample()
    observations, rewards, terminated, truncated, _ = copies.step(actions)
    assert terminated.tolist() == [False, True]
    assert rewards[1] != 0
    for _ in range(4):
        later, rewards, terminated, truncated, _ = copies.step(actions)
        np.testing.assert_array_equal(later[1], observations[1])
        assert rewards[1] == 0
        assert terminated.tolist() == [False, True]
    assert truncated.tolist() == [True, False]
    copies.reset(options={"reset_mask": terminated})
    _, rewards, terminated, truncated, _ = copies.step(actions)
    assert terminated.tolist() == [False, False]
    assert truncated.tolist() == [True, False]
    assert rewards[0] == 0


def test_seeds_fix_the_starts():
    copies = made(HalfCheetahDirection, 3)
    first, _ = copies.reset(seed=5)
    other, _ = copies.reset()
    again, _ = copies.reset(seed=5)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any(axis=1).all()
    np.testing.assert_array_equal(copies.reset(seed=6)[0][:2], first[1:])


def test_more_threads_than_copies():
    one, many = made(AntVelocity, 3), made(AntVelocity, 3, threads=8)
    for _ in range(10):
        actions = one.action_space.sample()
        np.testing.assert_array_equal(one.step(actions)[0], many.step(actions)[0])
    many.close()


@pytest.mark.parametrize("environment", ALL)
@pytest.mark.filterwarnings("ignore:.*(infinity|not having a spec).*:UserWarning")  # said of Gymnasium's own as well
def test_gymnasiums_checker_passes(environment):
    copies = environment(1, observe_task=True)
    assert isinstance(copies, VectorEnv)
    assert isinstance(copies, TaskEnvironment)
    check_env(SingleTask(copies, torch.tensor([1.0])))


def test_gymnasiums_statistics_of_episodes():
    copies = RecordEpisodeStatistics(made(HalfCheetahDirection, 2, horizon=4))
    copies.reset(seed=0)
    total = np.zeros(2)
    for _ in range(4):
        _, rewards, _, truncated, infos = copies.step(copies.action_space.sample())
        total += rewards
    assert truncated.all()
    np.testing.assert_allclose(infos["episode"]["r"], total)
    assert infos["episode"]["l"].tolist() == [4, 4]


def test_bad_input_is_named():
    copies = made(HalfCheetahDirection, 3, tasks=[1.0, -1.0, 1.0])
    with pytest.raises(ValueError, match=r"one task per copy, shape \[3, 1\]; got shape \[2, 1\]"):
        copies.set_tasks(torch.ones(2, 1))
    with pytest.raises(ValueError, match="tasks must be finite; got nan for copy 2"):
        copies.set_tasks(torch.tensor([[1.0], [1.0], [torch.nan]]))
    with pytest.raises(ValueError, match=r"shape \(3, 6\); got \(3, 5\)"):
        copies.step(np.zeros((3, 5), np.float32))
    actions = np.zeros((3, 6), np.float32)
    actions[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"actions must be finite; got .* for copy 1 \(task \[-1.0\]\)"):
        copies.step(actions)
    with pytest.raises(ValueError, match="reset_mask"):
        copies.reset(options={"reset_mask": np.ones(2, dtype=bool)})
    with pytest.raises(ValueError, match='"gymnasium" or "paper"; got \'theirs\''):
        HalfCheetahDirection(2, rewards="theirs")
    with pytest.raises(ValueError, match="HalfCheetahDirection: num_envs must be at least 1; got 0"):
        HalfCheetahDirection(0)


def test_an_order_that_makes_no_sense_is_named():
    copies = HalfCheetahDirection(2)
    with pytest.raises(RuntimeError, match="the copies have no tasks"):
        copies.reset(seed=0)
    copies.set_tasks(torch.ones(2, 1))
    with pytest.raises(RuntimeError, match="must be reset before the first step"):
        copies.step(np.zeros((2, 6), np.float32))


def test_an_unstable_simulation_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log
    copies = made(HalfCheetahDirection, 3, tasks=[1.0, -1.0, 1.0])
    copies.physics.qvel[1, 0] = 1e12
    with pytest.raises(RuntimeError, match=r"copy 1 \(task \[-1.0\]\) became unstable at step 1"):
        copies.step(np.zeros((3, 6), np.float32))


def test_fewstep_alone_imports_neither_gymnasium_nor_mujoco():
    code = "import sys, fewstep; print({'gymnasium', 'mujoco'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
