"""Common mistakes in arguments are refused before anything is computed, with the fix."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import rl
from fewstep.objectives import losses
from fewstep.tasks import Batch, Sinusoids, Task


def learner() -> fs.MetaLearner:
    return fs.maml(fs.models.MLP(1, [8], 1), fs.mse, 0.01)


def tasks() -> Task:
    return Sinusoids(shots=5).sample(2)


def fit(optimizer: object) -> None:
    fs.fit(learner(), Sinusoids(), optimizer, iterations=1, progress=False)


MISTAKES: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "optimiser of the model": (
        lambda: fit(torch.optim.Adam(fs.models.MLP(1, [8], 1).parameters())),
        ValueError,
        "none of the optimiser's parameters belongs to the learner",
    ),
    "optimiser's class": (lambda: fit(torch.optim.SGD), TypeError, "got the class SGD"),
    "rate for an optimiser": (lambda: fit(0.1), TypeError, "pass an optimiser.*got float"),
    "rule's class": (
        lambda: fs.MetaLearner(nn.Linear(1, 1), fs.mse, rule=fs.SGD, steps=1), TypeError, r"fewstep\.SGD\(0\.1\).*cla",
    ),
    "loss's class": (lambda: fs.maml(nn.Linear(1, 1), nn.MSELoss, 0.1), TypeError, "got the class MSELoss"),
    "supervised class": (lambda: fs.supervised(nn.MSELoss), TypeError, r"supervised\(MSELoss\(\)\)"),
    "loss of two tensors": (
        lambda: fs.maml(nn.Linear(1, 1), lambda p, y: (p - y).mean(), 0.1).meta_loss(tasks()), TypeError, "supervised",
    ),
    "parameters for names": (
        lambda: fs.maml(nn.Linear(1, 1), fs.mse, 0.1, adapts=list(nn.Linear(1, 1).parameters())), TypeError, "names",
    ),
    "chunk": (lambda: fs.maml(nn.Linear(1, 1), fs.mse, 0.1, chunk=2.5), ValueError, "chunk must be.*whole number"),
    "no tasks": (lambda: learner().meta_loss([]), TypeError, "got an empty list"),
    "tuples for batches": (lambda: losses._of((1, 2), "mse"), TypeError, r"takes a fewstep\.Batch.*got tuple"),
    "task as a source": (lambda: fs.evaluate(learner(), tasks()), TypeError, r"got Task.*learner\.score"),
    "bare metric": (
        lambda: fs.evaluate(learner(), Sinusoids(), 2, metric=nn.functional.mse_loss), TypeError, "metric.*supervised",
    ),
    "metric that gives a word": (
        lambda: fs.evaluate(learner(), Sinusoids(), 2, metric=lambda model, batch: "low"), TypeError, "got.*str",
    ),
    "metric for each example": (
        lambda: learner().score(tasks(), lambda model, batch: model(batch.x)), TypeError, r"shape \(\d+, 1\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_refused(name: str) -> None:
    mistake, error, words = MISTAKES[name]
    with pytest.raises(error, match=words):
        mistake()


def test_policies_adapt_to_one_task_in_a_whole_number_of_steps() -> None:
    rollouts = rl.Rollouts(rl.environments.PointNavigation(num_envs=4), episodes=2, horizon=3)
    policy = rl.MetaPolicy(rl.GaussianPolicy(2, 2), rollouts, rule=fs.SGD(0.1), steps=1)
    drawn = rl.EnvironmentTasks(rollouts.environment).sample(2)
    for steps in -1, 1.5:
        with pytest.raises(ValueError, match="whole number"):
            policy.adapt(drawn[0].support, steps)
    with pytest.raises(ValueError, match="one task"):
        policy.adapt(drawn.support)
    with pytest.raises(TypeError, match="got Batch"):
        policy.adapt(Batch(torch.zeros(1), None))


class Solved(torch.autograd.Function):
    """Euler's method, differentiated by the adjoint equation, with constants in the backward pass."""

    @staticmethod
    def forward(ctx, function, steps, z, *params):
        ctx.function, ctx.steps, ctx.params = function, steps, params
        with torch.no_grad():
            for _ in range(steps):
                z = z + function(z) * 2 / steps
        ctx.save_for_backward(z)
        return z

    @staticmethod
    def backward(ctx, a):
        (z,) = ctx.saved_tensors
        sums = [torch.zeros_like(p) for p in ctx.params]
        for _ in range(ctx.steps):
            with torch.enable_grad():
                y = z.detach().requires_grad_()
                out = ctx.function(y)
                gz, *gp = torch.autograd.grad(out, (y, *ctx.params), a.detach() * 2 / ctx.steps)
            z, a = z - out.detach() * 2 / ctx.steps, a + gz
            sums = [s + g for s, g in zip(sums, gp, strict=True)]
        return None, None, a, *sums


class Flow(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.start, self.flow, self.end = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 2)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return self.end(Solved.apply(self.flow, self.steps, self.start(x), *self.flow.parameters()))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("steps", [5, 20, 80])
def test_a_coarse_solver_whose_adjoint_detaches_is_refused(steps: int) -> None:
    data = Task(*(Batch(torch.randn(2, 5, 4), torch.randn(2, 5, 2)) for _ in range(2)))
    with pytest.raises(ValueError, match=r"(Solved.*FirstOrder|differ.*Solved)"):
        fs.maml(Flow(steps), fs.mse, 0.3, 3, vectorize=False).meta_loss(data)
    assert fs.maml(Flow(steps), fs.mse, 0.3, 3, adjoint=fs.FirstOrder(), vectorize=False).meta_loss(data).isfinite()
