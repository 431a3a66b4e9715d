"""Update rules: against torch.optim, learned rates, and a rule with a learned cell."""

import copy

import pytest
import torch
from gradients.checks import SmoothNetwork, assert_matches_differences, assert_same, meta_gradient, regression_tasks
from torch import nn

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")


def bowl(params, batch):
    """A loss that is not quadratic, so that every step has a different gradient."""
    return (params["a"].square() * batch).sum() + (params["a"][0] * params["b"]).sin().sum() + params["b"].exp().sum()


@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (fs.GradientDescent(0.1), lambda params: torch.optim.SGD(params, 0.1)),
        (fs.GradientDescent(0.05, momentum=0.8), lambda params: torch.optim.SGD(params, 0.05, momentum=0.8)),
        (fs.Adam(0.1), lambda params: torch.optim.Adam(params, 0.1)),
        (fs.Adam(0.2, betas=(0.0, 0.999)), lambda params: torch.optim.Adam(params, 0.2, betas=(0.0, 0.999))),
        (fs.Adam(0.1, (0.7, 0.8), 1e-2), lambda params: torch.optim.Adam(params, 0.1, (0.7, 0.8), 1e-2)),
        (fs.CarriedAdam({"a": torch.empty(3), "b": torch.empty(2)}, 0.1), lambda params: torch.optim.Adam(params, 0.1)),
    ],
    ids=["sgd", "momentum", "adam", "adam without first moment", "adam, all options", "carried adam"],
)
def test_same_as_torch_optim(rule, optimizer):
    params, batch = {"a": torch.randn(3), "b": torch.randn(2)}, torch.rand(3)
    ours = params
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    optimizer = optimizer(list(leaves.values()))
    for steps in range(1, 7):
        ours = fs.adapt(bowl, params, batch, rule, steps)
        optimizer.zero_grad()
        bowl(leaves, batch).backward()
        optimizer.step()
        for name, value in leaves.items():
            torch.testing.assert_close(ours[name], value.detach(), rtol=0, atol=1e-13)
    assert (ours["a"] - params["a"]).abs().min() > 1e-3


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.9, 0.99)])
def test_carried_adam_continues_from_task_to_task(betas, vectorize):
    """One optimiser of PyTorch, where the parameters are reset after each task."""
    model, steps = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), 3
    rule = fs.CarriedAdam(model.named_parameters(), 0.05, betas)
    learner = fs.reptile(model, fs.mse, rule, steps, vectorize=vectorize)
    adapted = copy.deepcopy(model)
    optimizer = torch.optim.Adam(adapted.parameters(), 0.05, betas)

    def adapt(support):
        adapted.load_state_dict(model.state_dict())
        for _ in range(steps):
            optimizer.zero_grad()
            fs.mse(adapted, support).backward()
            optimizer.step()
        return [value.detach().clone() for value in adapted.parameters()]

    for _ in range(3):
        tasks = regression_tasks(count=2)
        adapt(tasks.support[0])
        moments = copy.deepcopy(optimizer.state_dict())
        ends = []
        for i in range(2):
            optimizer.load_state_dict(copy.deepcopy(moments))
            ends.append(adapt(tasks.support[i]))
        optimizer.load_state_dict(moments)
        learner.zero_grad()
        learner.meta_gradient(tasks)
        for start, came, *phis in zip(model.parameters(), learner.model.parameters(), *ends, strict=True):
            torch.testing.assert_close(came.grad, start.detach() - torch.stack(phis).mean(0), rtol=0, atol=1e-12)
    kept = copy.deepcopy(learner.state_dict())
    assert kept["rule.count"] == 9
    again = fs.reptile(model, fs.mse, fs.CarriedAdam(model.named_parameters(), 0.05, betas), steps)
    again.load_state_dict(kept)
    torch.testing.assert_close(again.adapt(tasks.support[0]).state_dict(), learner.adapt(tasks.support[0]).state_dict())
    learner.eval().meta_gradient(tasks)
    learner.score(tasks)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, kept[name]), name


@pytest.mark.parametrize("per", ["parameter", "tensor"])
@pytest.mark.parametrize("steps", [None, 2])
def test_learned_rates_scale_their_gradients(per, steps):
    params = {"a": torch.randn(3), "b": torch.randn(2)}
    rule = fs.LearnedRates(params, 0.1, per=per, steps=steps)
    lead = () if steps is None else (steps,)
    shapes = {name: lead + (tuple(params[name].shape) if per == "parameter" else ()) for name in params}
    assert {name: tuple(rate.shape) for name, rate in rule.rates.items()} == shapes
    for rate in rule.parameters():
        nn.init.uniform_(rate)
    grads = {name: torch.randn_like(value) for name, value in params.items()}
    for step in range(4):  # steps beyond the last have its rate
        moved, _ = rule.update(params, grads, None, step, torch.tensor(0.0))
        for name, rate in rule.rates.items():
            rate = rate if steps is None else rate[min(step, 1)]
            torch.testing.assert_close(moved[name], params[name] - rate * grads[name])


def test_learned_rates_for_nested_names():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Tanh(), nn.Linear(2, 1)))
    rule = fs.LearnedRates(model.named_parameters(), 0.25, per="tensor")
    assert rule.rate("1.1.weight").item() == 0.25
    twin = fs.LearnedRates(model.named_parameters(), 0.5, per="tensor")
    twin.load_state_dict(rule.state_dict())
    assert twin.rate("0.bias").item() == 0.25


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fs.GradientDescent(0.0), r"GradientDescent.*positive; got lr=0"),
        (lambda: fs.Adam(-1.0), r"Adam.*positive; got lr=-1"),
        (lambda: fs.LearnedRates({"a": torch.ones(1)}, 0.1, per="layer"), r"\"parameter\" or \"tensor\"; got 'layer'"),
        (lambda: fs.LearnedRates({"a": torch.ones(1)}, 0.1, per="tensor", steps=0), r"steps.*at least 1; got 0"),
    ],
)
def test_invalid_choices_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


class LearnedCell(nn.Module):
    """A small Meta-LSTM (Ravi and Larochelle 2017): φ ← f·φ − i·∇L, gates from gradient, loss and their own past."""

    def __init__(self):
        super().__init__()
        self.forget = nn.Parameter(torch.tensor([3.0, 0.2, -0.3, 0.1]))
        self.input = nn.Parameter(torch.tensor([-1.5, 0.3, 0.2, -0.2]))

    def init(self, params):
        return {name: (torch.ones_like(value), torch.zeros_like(value)) for name, value in params.items()}

    def update(self, params, grads, state, step, loss):
        moved, gates = {}, {}
        for name, value in params.items():
            gradient, (forget, write) = grads[name], state[name]
            forget, write = self.gate(self.forget, gradient, loss, forget), self.gate(self.input, gradient, loss, write)
            moved[name], gates[name] = forget * value - write * gradient, (forget, write)
        return moved, gates

    def gate(self, weight, gradient, loss, past):
        return torch.sigmoid(
            weight[0] + weight[1] * torch.tanh(gradient) + weight[2] * torch.tanh(loss) + weight[3] * past
        )


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed()])
def test_rule_with_state_loss_and_learned_weights(adjoint, vectorize):
    learner = fs.MetaLearner(SmoothNetwork(), fs.mse, rule=LearnedCell(), steps=3, adjoint=adjoint, vectorize=vectorize)
    tasks = regression_tasks(count=2)
    assert_matches_differences(learner, tasks)
    gradients = meta_gradient(learner, tasks)
    assert min(gradients[name].abs().min() for name in ("rule.forget", "rule.input")) > 1e-6


def test_a_rule_that_is_not_a_module():
    class SignDescent:
        def init(self, params):
            return None

        def update(self, params, grads, state, step, loss):
            return {name: params[name] - 0.1 * grads[name].sign() for name in params}, state

    model, tasks = SmoothNetwork(), regression_tasks()
    learner = fs.MetaLearner(model, fs.mse, rule=SignDescent(), steps=1)
    adapted = learner.adapt(tasks.support[0])
    fs.mse(model, tasks.support[0]).backward()
    torch.testing.assert_close(adapted.head.weight, model.head.weight - 0.1 * model.head.weight.grad.sign())
    exact = meta_gradient(learner, tasks)
    first_order = fs.MetaLearner(model, fs.mse, rule=SignDescent(), steps=1, adjoint=fs.FirstOrder())
    assert_same(exact, meta_gradient(first_order, tasks), atol=1e-12)  # a sign has derivative 0
