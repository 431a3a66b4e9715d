"""2D navigation."""

import numpy as np
import pytest
import torch

from fewstep.rl.environments import PointNavigation, TaskEnvironment, paper_goals


def reset_to(goals, **choices):
    environment = PointNavigation(len(goals), **choices)
    environment.set_tasks(torch.tensor(goals))
    environment.reset()
    return environment


def test_is_a_task_environment_with_the_papers_goals():
    environment = PointNavigation(2)
    assert isinstance(environment, TaskEnvironment)
    goals = environment.sample_tasks(1000, torch.Generator().manual_seed(0))
    assert goals.shape == (1000, 2)
    assert -0.5 <= goals.min() < -0.49
    assert 0.49 < goals.max() <= 0.5


def test_the_authors_goals():
    goals = paper_goals()
    np.random.seed(1)
    np.testing.assert_allclose(goals.numpy(), np.random.uniform(-0.5, 0.5, size=(40, 2)), rtol=1e-6)
    assert goals.norm(dim=1).mean().item() == pytest.approx(0.401, abs=5e-4)


def test_moves_clips_and_ends():
    environment = reset_to([[0.1, 0.0], [0.3, 0.4]])
    observations, rewards, terminated, truncated, _ = environment.step(np.array([[0.2, 0.0], [0.05, -0.1]]))
    assert observations == pytest.approx(np.array([[0.1, 0.0], [0.05, -0.1]]))
    assert rewards == pytest.approx([0.0, -np.hypot(0.25, 0.5)], abs=1e-6)
    assert terminated.tolist() == [True, False]
    assert truncated.tolist() == [False, False]


def test_squared_distance_and_the_observed_goal():
    environment = reset_to([[0.3, 0.4]], reward="squared distance", observe_task=True, horizon=1)
    observations, rewards, _, truncated, _ = environment.step(np.zeros((1, 2)))
    assert observations == pytest.approx(np.array([[0.0, 0.0, 0.3, 0.4]]))
    assert rewards == pytest.approx([-0.25])
    assert truncated.all()


def test_resets_only_what_is_asked_for():
    environment = reset_to([[0.5, 0.5], [0.5, 0.5]], observe_task=True)
    environment.step(np.full((2, 2), 0.1))
    environment.set_tasks(torch.full((2, 2), 0.2))
    observations, _ = environment.reset(options={"reset_mask": np.array([True, False])})
    assert observations == pytest.approx(np.array([[0.0, 0.0, 0.2, 0.2], [0.1, 0.1, 0.5, 0.5]]))


def test_refuses_what_cannot_be():
    with pytest.raises(ValueError, match=r"one task per copy, shape \[3, 2\]; got shape \[2, 2\]"):
        PointNavigation(3).set_tasks(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="reward must be"):
        PointNavigation(3, reward="cost")
    with pytest.raises(ValueError, match="at least 1"):
        PointNavigation(0)
