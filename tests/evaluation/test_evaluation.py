"""Evaluation against an independent recomputation."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import fewstep
from fewstep.evaluation.adaptation_time import adaptation_seconds
from fewstep.tasks import Sinusoids, generator


def test_evaluate_equals_a_plain_loop():
    torch.manual_seed(0)
    learner = fewstep.maml(nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)), fewstep.mse, 0.05)
    found = fewstep.evaluate(learner, Sinusoids(5, 7), num_tasks=25, steps=3, seed=4, meta_batch=10)
    errors = []
    for number, count in enumerate((10, 10, 5)):
        tasks = Sinusoids(5, 7).sample(count, generator(4, number, stream=2))
        for i in range(count):
            task = tasks[i]
            row = []
            for steps in range(4):
                model = learner.adapt(task.support, steps=steps)
                with torch.no_grad():
                    row.append((model(task.query.x) - task.query.y).square().mean().item())
            errors.append(row)
    errors = np.array(errors)
    np.testing.assert_allclose(found.mean, errors.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.ci95, 1.96 * errors.std(0, ddof=1) / math.sqrt(25), rtol=1e-4)
    assert (found.tasks, found.steps, found.metric) == (25, 3, "mse")
    assert "3 steps" in str(found)


def test_evaluate_is_in_evaluation_mode_and_gives_it_back():
    model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    learner = fewstep.maml(model, fewstep.mse, 0.01)
    a, b = (fewstep.evaluate(learner, Sinusoids(), num_tasks=5, steps=1).values for _ in range(2))
    assert torch.equal(a, b)
    assert learner.training


def test_evaluate_refuses_no_tasks():
    learner = fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01)
    with pytest.raises(ValueError, match="tasks must be at least 1"):
        fewstep.evaluate(learner, Sinusoids(), num_tasks=0)


def test_evaluate_knows_the_former_name_of_num_tasks():
    learner = fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01)
    with pytest.warns(DeprecationWarning, match="now called num_tasks"):
        found = fewstep.evaluate(learner, Sinusoids(), tasks=3)
    assert found.tasks == 3


def test_evaluate_takes_any_metric():
    learner = fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01)

    def worst(model, batch):
        return (model(batch.x) - batch.y).abs().max()

    found = fewstep.evaluate(learner, Sinusoids(), num_tasks=5, steps=0, metric=worst)
    assert found.metric == "worst"
    assert found.mean[0] > 0


class TakesTime(nn.Module):
    """A learner that takes so many seconds of a clock for one task after another, or diverges for ``None``."""

    def __init__(self, clock: list[float], seconds: list[float | None]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.clock, self.seconds = clock, seconds

    def adapt(self, support, steps):
        assert not self.training
        assert support.x.shape == (5, 1)
        seconds = self.seconds.pop(0)
        if seconds is None:
            raise ValueError("Adaptation made parameter weight NaN")
        self.clock[0] += seconds
        return lambda x: x


def test_adaptation_time_is_the_median_without_the_first_and_the_diverged(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    module = sys.modules["fewstep.evaluation.adaptation_time"]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    learner = TakesTime(clock, [99.0, 99.0, 99.0, 1.0, None, 2.0, 30.0])
    assert adaptation_seconds(learner, Sinusoids(5), steps=2, num_tasks=4) == 2.0
    assert learner.training
    assert adaptation_seconds(TakesTime(clock, [None] * 5), Sinusoids(5), steps=2, num_tasks=2) is None
