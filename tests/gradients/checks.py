"""A small smooth network, tasks for it, and references for its meta-gradients."""

import torch
from torch import nn

import fewstep as fs
from fewstep.tasks import Batch, Task


class SmoothNetwork(nn.Module):
    """A tanh network with a weight that is used by two layers and a frozen scale."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.tensor(1.3), requires_grad=False)
        self.head = nn.Linear(2, 1)

    def forward(self, x):
        return self.head(self.scale * torch.tanh(self.second(torch.tanh(self.first(x)))))


def regression_tasks(count=3, shots=4, queries=5, inputs=2, outputs=1):
    """Tasks of random points: ``[count, shots or queries, features]``."""

    def batch(examples):
        return Batch(torch.randn(count, examples, inputs), torch.randn(count, examples, outputs))

    return Task(batch(shots), batch(queries))


def classification_tasks(count=3, shots=4, queries=5, inputs=2, ways=3):
    def batch(examples):
        return Batch(torch.randn(count, examples, inputs), torch.randint(ways, (count, examples)))

    return Task(batch(shots), batch(queries))


def learned(learner):
    """The parameters that the outer loop learns, by name."""
    return {name: value for name, value in learner.named_parameters() if value.requires_grad}


def meta_gradient(learner, tasks):
    """The gradient of ``meta_loss`` by name; None for parameters without one."""
    learner.zero_grad(set_to_none=True)
    learner.meta_loss(tasks).backward()
    return {name: None if value.grad is None else value.grad.clone() for name, value in learned(learner).items()}


def by_hand(net, tasks, lr=0.1, steps=2):
    """MAML's meta-gradient with ``fewstep.mse``, by name, from a plain loop with autograd and ``functional_call``."""
    values, total = dict(net.named_parameters()), torch.zeros(())

    def loss(params, batch):
        return fs.mse(lambda x: torch.func.functional_call(net, params, (x,)), batch)

    for i in range(len(tasks)):
        params = dict(values)
        for _ in range(steps):
            slopes = torch.autograd.grad(loss(params, tasks[i].support), list(params.values()), create_graph=True)
            params = {n: p - lr * slope for (n, p), slope in zip(params.items(), slopes, strict=True)}
        total = total + loss(params, tasks[i].query) / len(tasks)
    gradients = torch.autograd.grad(total, list(values.values()))
    return {f"model.{name}": gradient for name, gradient in zip(values, gradients, strict=True)}


def central_differences(learner, tasks, epsilon=1e-6):
    """(L(θ + ε e_i) − L(θ − ε e_i)) / 2ε for every entry of every learned parameter."""
    result = {}
    with torch.no_grad():
        for name, parameter in learned(learner).items():
            flat, slopes = parameter.data.view(-1), torch.zeros(parameter.numel())
            for i in range(flat.numel()):
                centre = flat[i].item()
                flat[i] = centre + epsilon
                above = learner.meta_loss(tasks)
                flat[i] = centre - epsilon
                below = learner.meta_loss(tasks)
                flat[i] = centre
                slopes[i] = (above - below) / (2 * epsilon)
            result[name] = slopes.view_as(parameter)
    return result


def assert_same(came, expected, atol=1e-10):
    """Assert that two dictionaries of gradients are equal; None counts as zeros."""
    assert came.keys() == expected.keys()
    for name in came:
        if came[name] is None or expected[name] is None:
            present = expected[name] if came[name] is None else came[name]
            assert present is None or not present.any(), f"{name}: {came[name]} against {expected[name]}"
        else:
            torch.testing.assert_close(came[name], expected[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def assert_matches_differences(learner, tasks, atol=2e-8):
    """Assert that the meta-gradient agrees with finite differences, and that not all of it is zero."""
    came = meta_gradient(learner, tasks)
    assert any(gradient is not None and gradient.abs().max() > 1e-4 for gradient in came.values())
    assert_same(came, central_differences(learner, tasks), atol)
