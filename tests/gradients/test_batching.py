"""Tasks at once, in chunks, in a loop and compiled have the same meta-loss and meta-gradient."""

import copy

import pytest
import torch
from gradients.checks import SmoothNetwork, assert_same, learned, meta_gradient, regression_tasks
from torch import nn

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")

WAYS = {
    "loop": {"vectorize": False},
    "chunks of 1": {"vectorize": True, "chunk": 1},
    "chunks of 2": {"vectorize": True, "chunk": 2},
    "chunk larger than the meta-batch": {"vectorize": True, "chunk": 9},
    "auto": {},
}


class Crowded(SmoothNetwork):
    """A norm, an unused parameter, a buffer and integers, in addition to a tied weight and a frozen scale."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(2, eps=1.0)
        self.spare = nn.Parameter(torch.ones(2))
        self.register_buffer("shift", torch.tensor(0.4))
        self.order = nn.Parameter(torch.tensor([1, 0]), requires_grad=False)

    def forward(self, x):
        return super().forward(self.norm(x[:, self.order] + self.shift))


def learned_rates(model, objective=fs.query_loss, **choices):
    adapted = {name: value for name, value in model.named_parameters() if value.requires_grad}
    rule = fs.LearnedRates(adapted, 0.2, per="tensor", steps=2)
    return fs.MetaLearner(model, fs.mse, rule=rule, steps=2, objective=objective, **choices)


def imaml(model, **choices):
    return fs.imaml(model, fs.mse, 0.2, steps=5, cg_steps=4, **choices)


def reptile(model, **choices):
    return fs.reptile(model, fs.mse, fs.GradientDescent(0.2), steps=2, **choices)


def adjoint(choice):
    return lambda model, **choices: fs.maml(model, fs.mse, 0.2, 2, adjoint=choice, **choices)


LEARNERS = {
    "learned rates": learned_rates,
    "multi-step": lambda model, **choices: learned_rates(model, fs.multi_step_loss((0.4, 0.6)), **choices),
    "recomputed": adjoint(fs.Recomputed()),
    "recomputed, forward": adjoint(fs.Recomputed("forward")),
    "first order": adjoint(fs.FirstOrder()),
    "imaml": imaml,
    "reptile": reptile,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", LEARNERS)
def test_same_as_all_tasks_at_once(make, way):
    model, tasks = Crowded(), regression_tasks(count=5)
    reference = LEARNERS[make](model, vectorize=True)
    learner = LEARNERS[make](model, **WAYS[way])
    expected = reference.meta_loss(tasks)
    torch.testing.assert_close(learner.meta_loss(tasks), expected, rtol=0, atol=1e-12)
    assert_same(meta_gradient(learner, tasks), meta_gradient(reference, tasks), atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(learner.meta_loss(tasks), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(learner.score(tasks), reference.score(tasks), rtol=0, atol=1e-12)


@pytest.mark.parametrize("choices", [{"vectorize": True}, {"vectorize": False}, {"vectorize": True, "chunk": 2}])
@pytest.mark.parametrize("choice", [fs.Unrolled(), fs.FirstOrder()])
def test_unused_parameters_get_no_gradient(choice, choices):
    gradients = meta_gradient(adjoint(choice)(Crowded(), **choices), regression_tasks())
    assert [name for name, gradient in gradients.items() if gradient is None] == ["model.spare"]


@pytest.mark.parametrize("choices", [{"vectorize": True}, {"vectorize": False}, {"vectorize": True, "chunk": 2}])
def test_backward_scales_and_accumulates(choices):
    model, tasks = SmoothNetwork(), regression_tasks()
    once = meta_gradient(fs.maml(model, fs.mse, 0.2, **choices), tasks)
    learner = fs.maml(model, fs.mse, 0.2, **choices)
    (2.5 * learner.meta_loss(tasks)).backward()
    learner.meta_loss(tasks).backward()
    came = {name: value.grad for name, value in learned(learner).items()}
    assert_same(came, {name: 3.5 * value for name, value in once.items()}, atol=1e-12)


@pytest.mark.parametrize("choices", [{}, {"vectorize": False}, {"compile": True}])
def test_meta_gradient_equals_loss_and_backward(choices):
    model, tasks = Crowded(), regression_tasks()
    expected = meta_gradient(learned_rates(model), tasks)
    learner = learned_rates(model, **choices)
    loss = learner.meta_gradient(tasks)
    torch.testing.assert_close(loss, learner.meta_loss(tasks).detach())
    assert not loss.requires_grad
    assert_same({name: value.grad for name, value in learned(learner).items()}, expected, atol=1e-10)
    learner.meta_gradient(tasks)
    doubled = {name: None if value is None else 2 * value for name, value in expected.items()}
    assert_same({name: value.grad for name, value in learned(learner).items()}, doubled, atol=1e-10)


def test_a_compiled_meta_gradient_has_the_strides_of_its_parameter():
    """As autograd guarantees and fused optimisers require."""
    learner = fs.maml(nn.Linear(3, 2), fs.mse, 0.1, compile=True)
    learner.model.weight.data = torch.randn(3, 2).t()
    x, y = torch.randn(4, 5, 3), torch.randn(4, 5, 2)
    batch = fs.tasks.Batch(x, y)
    learner.meta_gradient(fs.tasks.Task(batch, batch))
    assert learner.model.weight.grad.stride() == learner.model.weight.stride() == (1, 2)


def test_meta_gradient_uses_an_overridden_meta_loss():
    class Scaled(fs.MetaLearner):
        def meta_loss(self, tasks):
            return 3 * super().meta_loss(tasks)

    model, tasks = SmoothNetwork(), regression_tasks()
    expected = meta_gradient(fs.maml(model, fs.mse, 0.2), tasks)
    learner = Scaled(model, fs.mse, rule=fs.GradientDescent(0.2), steps=1, compile=True)
    learner.meta_gradient(tasks)
    tripled = {name: None if value is None else 3 * value for name, value in expected.items()}
    assert_same({name: value.grad for name, value in learned(learner).items()}, tripled, atol=1e-10)


def test_compiled_equals_eager():
    """One compilation, on a network with many special cases; changed parameters must not need another one."""
    model = Crowded()
    eager, compiled = learned_rates(model), learned_rates(model, compile=True)
    tasks = regression_tasks()
    for _ in range(2):
        expected = meta_gradient(eager, tasks)
        came = meta_gradient(compiled, tasks)
        assert came["model.spare"] is None
        assert_same(came, expected, atol=1e-10)
        torch.testing.assert_close(compiled.meta_loss(tasks), eager.meta_loss(tasks), rtol=0, atol=1e-10)
        with torch.no_grad():
            for ours, theirs in zip(eager.parameters(), compiled.parameters(), strict=True):
                if ours.is_floating_point():
                    theirs.copy_(ours.add_(0.1 * torch.randn_like(ours)))
        eager.model.shift += 0.3
        compiled.model.shift += 0.3
        tasks = regression_tasks()
    twin = copy.deepcopy(compiled)
    with torch.no_grad():
        torch.testing.assert_close(twin.meta_loss(tasks), compiled.meta_loss(tasks))
        next(twin.parameters()).add_(1.0)
        assert twin.meta_loss(tasks) != compiled.meta_loss(tasks)


def test_compiled_dropout_cannot_be_recomputed():
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    learner = fs.maml(model, fs.mse, 0.1, adjoint=fs.Recomputed(), compile=True)
    with pytest.raises(ValueError, match=r"dropout.*Unrolled"):
        learner.meta_loss(regression_tasks())
