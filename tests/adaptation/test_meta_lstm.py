"""The Meta-LSTM: its update and its meta-gradient, against a recurrence computed coordinate by coordinate."""

import math

import pytest
import torch
from gradients.checks import (
    SmoothNetwork,
    assert_matches_differences,
    assert_same,
    classification_tasks,
    meta_gradient,
    regression_tasks,
)
from torch import nn
from torch.func import functional_call

import fewstep as fs
from fewstep.adaptation.meta_lstm import preprocess

STEPS = 3

double = pytest.mark.usefixtures("double")


def lively(hidden=3):
    """A rule far from its initialisation, where every weight matters."""
    rule = fs.MetaLSTM(hidden)
    for name, weight in rule.named_parameters():
        nn.init.normal_(weight, mean=-1.0 if name == "input_bias" else 0.0, std=0.6)
    return rule


def learner_of(model, rule, steps=STEPS, **choices):
    return fs.meta_lstm(model, fs.mse, steps, rule=rule, **choices)


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def channels(x):
    """The two channels of a loss or a gradient entry, two plain numbers."""
    return (math.log(abs(x)) / 10, math.copysign(1, x)) if abs(x) >= math.exp(-10) else (-1.0, math.exp(10) * x)


def written_out(weights, start, gradients, losses):
    """The final value of one coordinate, from its gradient at every step; the gradients and losses are numbers."""
    units = weights["lstm_hidden"].shape[0]
    h, cell = [torch.zeros(())] * units, [torch.zeros(())] * units
    f = i = torch.zeros(())
    c = start
    for gradient, loss in zip(gradients, losses, strict=True):
        z = torch.stack([torch.tensor(v) for v in (*channels(loss), *channels(gradient))]) @ weights["lstm_input"]
        z = z + torch.stack(h) @ weights["lstm_hidden"] + weights["lstm_bias"]
        for unit in range(units):
            write, forget, output, candidate = (z[gate * units + unit] for gate in range(4))
            cell[unit] = sigmoid(forget) * cell[unit] + sigmoid(write) * torch.tanh(candidate)
            h[unit] = sigmoid(output) * torch.tanh(cell[unit])
        f = torch.stack([*h, c, f]) @ weights["forget_weight"] + weights["forget_bias"]
        i = torch.stack([*h, c, i]) @ weights["input_weight"] + weights["input_bias"]
        c = sigmoid(f) * c - sigmoid(i) * gradient
    return c


class Spy(nn.Module):
    """The same rule, which records its inputs."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.grads, self.losses = rule, [], []

    def init(self, params):
        return self.rule.init(params)

    def update(self, params, grads, state, step, loss):
        self.grads.append({name: value.detach().clone() for name, value in grads.items()})
        self.losses.append(loss.item())
        return self.rule.update(params, grads, state, step, loss)


def noted(model, rule, support):
    """Gradients and losses along the path of one task."""
    spy = Spy(rule)
    fs.meta_lstm(model, fs.mse, STEPS, rule=spy).adapt(support)
    return spy.grads, spy.losses


def query_loss(weights, params, grads, losses, model, query):
    """The meta-objective by its definition, where gradients and losses are constants."""
    adapted = {}
    for name, value in params.items():
        entries = [
            written_out(weights, start, [g[name].view(-1)[place].item() for g in grads], losses)
            for place, start in enumerate(value.view(-1))
        ]
        adapted[name] = torch.stack(entries).view_as(value)
    return (functional_call(model, adapted, (query.x,)) - query.y).square().mean()


@double
@pytest.mark.parametrize("vectorize", [True, False])
def test_meta_gradient_is_that_of_the_recurrence_with_given_gradients(vectorize):
    model, rule, tasks = SmoothNetwork(), lively(), regression_tasks(count=2)
    came = meta_gradient(learner_of(model, rule, vectorize=vectorize), tasks)
    weights = {name: value.detach().clone().requires_grad_() for name, value in rule.named_parameters()}
    params = {n: v.detach().clone().requires_grad_() for n, v in model.named_parameters() if v.requires_grad}
    inputs = [noted(model, rule, tasks.support[task]) for task in range(2)]

    def objective(weights):
        return sum(query_loss(weights, params, *inputs[t], model, tasks.query[t]) for t in range(2)) / 2

    objective(weights).backward()
    expected = {f"rule.{name}": value.grad for name, value in weights.items()}
    expected |= {f"model.{name}": value.grad for name, value in params.items()}
    assert_same(came, expected, atol=1e-12)
    assert all(value.abs().max() > 1e-5 for value in came.values())

    # and finite differences along a direction of the weights
    with torch.no_grad():
        direction = {name: torch.randn_like(value) for name, value in weights.items()}
        above, below = (
            objective({name: value + sign * 1e-6 * direction[name] for name, value in weights.items()})
            for sign in (1, -1)
        )
        slope = sum((came[f"rule.{name}"] * value).sum() for name, value in direction.items())
        torch.testing.assert_close(slope, (above - below) / 2e-6, rtol=1e-6, atol=1e-9)


@double
@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed()])
def test_differentiates_through_its_inputs_if_not_first_order(adjoint):
    model, rule, tasks = SmoothNetwork(), lively(2), regression_tasks(count=2)
    exact = learner_of(model, rule, adjoint=adjoint)
    assert_matches_differences(exact, tasks)
    first_order, exact = meta_gradient(learner_of(model, rule), tasks), meta_gradient(exact, tasks)
    assert (first_order["rule.input_weight"] - exact["rule.input_weight"]).abs().max() > 1e-4


@double
def test_vmap_loop_and_compiled_agree():
    model, rule, tasks = nn.Linear(2, 1), lively(2), regression_tasks(count=3)  # small, since compilation takes long
    reference = learner_of(model, rule, 2, vectorize=True)
    expected = meta_gradient(reference, tasks)
    for choices in ({"vectorize": False}, {"vectorize": True, "chunk": 2}, {"compile": True}):
        learner = learner_of(model, rule, 2, **choices)
        torch.testing.assert_close(learner.meta_loss(tasks), reference.meta_loss(tasks), rtol=0, atol=1e-12)
        assert_same(meta_gradient(learner, tasks), expected, atol=1e-11)
        torch.testing.assert_close(learner.score(tasks), reference.score(tasks), rtol=0, atol=1e-12)


@double
def test_coordinates_share_weights_but_not_state():
    """The tensor and the place of a coordinate do not matter."""
    rule = lively()
    one = {"a": torch.randn(2, 3), "b": torch.randn(()), "c": torch.randn(1)}
    order = torch.randperm(8)

    def shuffled(params):
        return {"all": torch.cat([value.reshape(-1) for value in params.values()])[order]}

    two = shuffled(one)
    states = rule.init(one), rule.init(two)
    assert [tuple(value.shape) for value in states[0]] == [(8, 3), (8, 3), (8,), (8,)]
    for step in range(3):
        grads, loss = {name: torch.randn_like(value) for name, value in one.items()}, torch.tensor(0.7)
        one, first = rule.update(one, grads, states[0], step, loss)
        two, second = rule.update(two, shuffled(grads), states[1], step, loss)
        states = first, second
        torch.testing.assert_close(two["all"], shuffled(one)["all"])
    torch.testing.assert_close(states[1].hidden, states[0].hidden[order])
    assert {name: value.shape for name, value in one.items()} == {"a": (2, 3), "b": (), "c": (1,)}
    assert states[0].hidden.std(0).min() > 1e-3


def test_starts_as_gradient_descent_with_a_little_decay():
    """σ(b_F) lies in σ(4) … σ(5) and σ(b_I) in σ(−5) … σ(−4), which small weights hardly change."""
    params, grads = {"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([1.0, 0.0])}
    rates, kept = [], []
    for seed in range(20):
        rule = fs.MetaLSTM(generator=torch.Generator().manual_seed(seed))
        moved = rule.update(params, grads, rule.init(params), 0, torch.tensor(1.0))[0]["w"]
        rates.append(-moved[0].item())
        kept.append(moved[1].item())
    assert 1 / (1 + math.exp(5.02)) < min(rates) < max(rates) < 1 / (1 + math.exp(3.98))
    assert 1 / (1 + math.exp(-3.98)) < min(kept) < max(kept) < 1 / (1 + math.exp(-5.02))
    assert len(set(rates)) == 20
    again = fs.MetaLSTM(generator=torch.Generator().manual_seed(19))
    assert all(torch.equal(a, b) for a, b in zip(rule.parameters(), again.parameters(), strict=True))
    weights = torch.cat([value.view(-1) for name, value in rule.named_parameters() if "forget_b" not in name][:-1])
    assert 0.009 < weights.abs().max() <= 0.01


@double
def test_preprocessed_numbers():
    edge = math.exp(-10)
    numbers = torch.tensor([[3.0, -0.2, edge * 1.01], [-edge * 0.99, 1e-30, 0.0]], requires_grad=True)
    came = preprocess(numbers)
    expected = [[channels(x) for x in row] for row in numbers.tolist()]
    torch.testing.assert_close(came, torch.tensor(expected), rtol=0, atol=1e-14)
    came.sum().backward()
    assert numbers.grad.isfinite().all()


class Blobs:
    """Three classes around random centres of the plane."""

    def sample(self, n, generator=None):
        centres = 2 * torch.randn(n, 3, 2, generator=generator)

        def batch():
            y = torch.arange(3).repeat(n, 3)
            x = centres.gather(1, y[..., None].expand(-1, -1, 2)) + 0.5 * torch.randn(n, 9, 2, generator=generator)
            return fs.tasks.Batch(x, y)

        return fs.tasks.Task(batch(), batch())


def test_learns_to_classify():
    learner = fs.meta_lstm(nn.Linear(2, 3), fs.cross_entropy, steps=4, hidden=8)
    untrained = fs.evaluate(learner, Blobs(), num_tasks=100, metric=fs.accuracy)
    optimizer = torch.optim.Adam(learner.parameters(), 0.01)
    fs.fit(learner, Blobs(), optimizer, iterations=80, meta_batch=8, clip_norm=0.25, progress=False)
    trained = fs.evaluate(learner, Blobs(), num_tasks=100, metric=fs.accuracy)
    assert untrained.mean[-1] < 0.6
    assert trained.mean[0] < 0.5
    assert trained.mean[-1] > 0.8


@double
def test_factory_is_first_order_in_the_models_precision():
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3)).float()
    learner = fs.meta_lstm(model, fs.cross_entropy, hidden=5, adapts="1.*")
    assert (learner.steps, learner.adapts, learner.rule.hidden) == (12, ["1.weight", "1.bias"], 5)
    assert isinstance(learner.adjoint, fs.FirstOrder)
    assert {value.dtype for value in learner.parameters()} == {torch.float32}
    assert learner.rule.init({"w": torch.zeros(2, dtype=torch.float32)}).forget.shape == (2,)
    tasks = classification_tasks().to(torch.float32)
    assert all(value is not None for value in meta_gradient(learner, tasks).values())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fs.MetaLSTM(0), r"hidden must be at least 1; got 0"),
        (
            lambda: fs.MetaLSTM(forget_bias=(5.0, 4.0)),
            r"forget_bias must be \(low, high\) with low <= high; got \(5.0, 4.0\)",
        ),
        (
            lambda: fs.MetaLearner(nn.Linear(1, 1).double(), fs.mse, rule=fs.MetaLSTM(), steps=1),
            r"float32 on cpu.*parameter weight is torch.float64.*rule.to\(weight\)",
        ),
        (
            lambda: fs.meta_lstm(nn.Linear(1, 1), fs.mse, adjoint=fs.Implicit()),
            r"Implicit gives no gradient to the rule's learned parameters",
        ),
    ],
)
def test_invalid_choices_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
