"""Baselines: their results, recomputed one network at a time."""

import pytest
import torch
from torch import nn

import fewstep
from fewstep.baselines import MultiTask, l2_penalty, mean_penalty, no_penalty, pretrained
from fewstep.tasks import SinusoidPool, Sinusoids, generator


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()


def pool(count: int) -> SinusoidPool:
    return SinusoidPool(Sinusoids(shots=2, queries=4), count)


def penalty(kind: str, networks: list[nn.Module], i: int) -> torch.Tensor:
    if kind == "l2":
        return sum(value.square().sum() for value in networks[i].parameters())
    means = [torch.stack(values).mean(0) for values in zip(*(n.parameters() for n in networks), strict=True)]
    return sum((v - m).square().sum() for v, m in zip(networks[i].parameters(), means, strict=True))


@pytest.mark.parametrize(("kind", "regularizer"), [("none", no_penalty), ("l2", l2_penalty), ("mean", mean_penalty)])
def test_multi_task_equals_networks_trained_side_by_side(kind: str, regularizer):
    count, weight = 3, 0.05
    together = MultiTask(network(), fewstep.mse, count, fewstep.GradientDescent(0.1), regularizer, weight)
    fewstep.fit(together, pool(count), torch.optim.SGD(together.networks, 0.3), iterations=5, meta_batch=count,
                progress=False)  # fmt: skip
    networks = [network() for _ in range(count)]
    optimizer = torch.optim.SGD([value for n in networks for value in n.parameters()], 0.3)
    for iteration in range(5):
        tasks = pool(count).sample(count, generator(0, iteration)).to(torch.float64)
        optimizer.zero_grad()
        loss = torch.zeros((), dtype=torch.float64)
        for i, one in enumerate(networks):
            query = tasks[i].query
            loss = loss + (one(query.x) - query.y).square().mean() / count
            if kind != "none":
                loss = loss + weight * penalty(kind, networks, i) / count
        loss.backward()
        optimizer.step()
    average = together.average()
    for name, value in average.model.named_parameters():
        expected = torch.stack([dict(n.named_parameters())[name] for n in networks]).mean(0)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)


def test_multi_task_is_tested_from_the_mean():
    together = MultiTask(network(), fewstep.mse, 4, fewstep.GradientDescent(0.1))
    with torch.no_grad():
        for value in together.networks:
            value.copy_(torch.randn_like(value))
    found = fewstep.evaluate(together, Sinusoids(), num_tasks=6, steps=2)
    mean = network()
    with torch.no_grad():
        for value, stacked in zip(mean.parameters(), together.networks, strict=True):
            value.copy_(stacked.mean(0))
    learner = fewstep.maml(mean, fewstep.mse, 0.1)
    torch.testing.assert_close(found.values, fewstep.evaluate(learner, Sinusoids(), num_tasks=6, steps=2).values)
    support = Sinusoids().sample(1)[0].to(torch.float64).support
    a, b = together.adapt(support, 3), learner.adapt(support, 3)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_pretraining_is_joint_training_and_then_gradient_descent():
    model = network()
    learner = pretrained(model, fewstep.mse, fine_tuning_lr=0.1)
    tasks = Sinusoids(3, 4).sample(5).to(torch.float64)
    learner.meta_loss(tasks).backward()
    loss = (model(tasks.query.x) - tasks.query.y).square().mean()
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for value, gradient in zip(learner.model.parameters(), expected, strict=True):
        torch.testing.assert_close(value.grad, gradient)
    adapted = learner.adapt(tasks[0].support, steps=1)
    support = tasks[0].support
    loss = (model(support.x) - support.y).square().mean()
    steps = torch.autograd.grad(loss, list(model.parameters()))
    for new, old, gradient in zip(adapted.parameters(), model.parameters(), steps, strict=True):
        torch.testing.assert_close(new, old - 0.1 * gradient)


def test_the_pool_is_the_same_waves():
    a, b = (pool(5).sample(5, generator(0, i)) for i in (0, 1))
    assert not torch.equal(a.query.x, b.query.x)
    with pytest.raises(ValueError, match="holds 5 waves.*n=4"):
        pool(5).sample(4)
