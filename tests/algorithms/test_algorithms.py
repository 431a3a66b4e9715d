"""Each algorithm: which parameters it adapts, which it learns, and which algorithms are equal."""

import copy

import pytest
import torch
from gradients.checks import SmoothNetwork, assert_same, learned, meta_gradient, regression_tasks
from torch import nn

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")


class WithContext(nn.Module):
    """CAVIA's network: context parameters as additional inputs, zero at first."""

    def __init__(self):
        super().__init__()
        self.context = nn.Parameter(torch.zeros(2))
        self.body = nn.Linear(4, 3)
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.body(torch.cat([x, self.context.expand(len(x), -1)], -1))))


TRAINABLE = {"first.weight", "first.bias", "second.bias", "head.weight", "head.bias"}
HEAD = {"head.weight", "head.bias"}


def moved(learner, tasks):
    """The names of the parameters that adaptation changes."""
    adapted, model = learner.adapt(tasks.support[0]), learner.model
    pairs = zip(adapted.named_parameters(), model.parameters(), strict=True)
    return {name for (name, after), before in pairs if not torch.equal(after, before)}


def reached(learner, tasks):
    """The names of the parameters that get a meta-gradient."""
    return {name for name, value in meta_gradient(learner, tasks).items() if value is not None and value.any()}


def of_model(names):
    return {f"model.{name}" for name in names}


ALGORITHMS = {
    "maml": (lambda m: fs.maml(m, fs.mse, 0.2, 2), TRAINABLE, of_model(TRAINABLE)),
    "fomaml": (lambda m: fs.fomaml(m, fs.mse, 0.2, 2), TRAINABLE, of_model(TRAINABLE)),
    "anil": (lambda m: fs.anil(m, fs.mse, 0.2, 2, head="head.*"), HEAD, of_model(TRAINABLE)),
    "boil": (lambda m: fs.boil(m, fs.mse, 0.2, 2, head="head.*"), TRAINABLE - HEAD, of_model(TRAINABLE)),
    "imaml": (lambda m: fs.imaml(m, fs.mse, 0.2, 9), TRAINABLE, of_model(TRAINABLE)),
    "reptile": (lambda m: fs.reptile(m, fs.mse, fs.GradientDescent(0.2)), TRAINABLE, of_model(TRAINABLE)),
    "meta_sgd": (
        lambda m: fs.meta_sgd(m, fs.mse, 0.2, 2),
        TRAINABLE,
        of_model(TRAINABLE) | {f"rule.rates.{name.replace('.', '/')}" for name in TRAINABLE},
    ),
    "meta_sgd of the head": (
        lambda m: fs.meta_sgd(m, fs.mse, 0.2, 2, adapts="head.*"),
        HEAD,
        of_model(TRAINABLE) | {f"rule.rates.{name.replace('.', '/')}" for name in HEAD},
    ),
    "meta_lstm": (
        lambda m: fs.meta_lstm(m, fs.mse, 2),
        TRAINABLE,
        of_model(TRAINABLE) | {f"rule.{name}" for name, _ in fs.MetaLSTM().named_parameters()},
    ),
    "maml_plus_plus": (
        lambda m: fs.maml_plus_plus(m, fs.mse, 0.2, 2),
        TRAINABLE,
        of_model(TRAINABLE) | {f"rule.rates.{name.replace('.', '/')}" for name in TRAINABLE},
    ),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_adapted_and_learned_parameters(algorithm):
    make, inner, outer = ALGORITHMS[algorithm]
    learner, tasks = make(SmoothNetwork()), regression_tasks()
    assert moved(learner, tasks) == inner
    assert set(learned(learner)) == reached(learner, tasks) == outer


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed()])
def test_cavia_resets_its_context_and_learns_the_rest(adjoint):
    model, tasks = WithContext(), regression_tasks()
    learner = fs.cavia(model, fs.mse, 0.5, 2, adjoint=adjoint)
    rest = {"body.weight", "body.bias", "head.weight", "head.bias"}
    assert moved(learner, tasks) == {"context"}
    assert set(learned(learner)) == reached(learner, tasks) == of_model(rest)
    optimizer = torch.optim.Adam([value for value in learner.parameters() if value.requires_grad], 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        learner.meta_loss(tasks).backward()
        optimizer.step()
    assert not learner.model.context.any()
    first, again = (learner.adapt(tasks.support[0]).context for _ in range(2))
    assert first.any()
    assert torch.equal(first, again)
    assert first.requires_grad  # as in the user's module


def test_cavia_and_boil_name_what_is_missing():
    with pytest.raises(ValueError, match=r"context='context' matches no trainable parameter"):
        fs.cavia(SmoothNetwork(), fs.mse, 0.1)
    with pytest.raises(ValueError, match=r"head='classifier\.\*' matches no trainable parameter"):
        fs.boil(SmoothNetwork(), fs.mse, 0.1, head="classifier.*")


def maml(model, **choices):
    return fs.maml(model, fs.mse, 0.2, 3, **choices)


def constant_rates(per, steps=None):
    def make(model):
        rates = fs.LearnedRates(model.named_parameters(), 0.2, per=per, steps=steps)
        return fs.MetaLearner(model, fs.mse, rule=rates, steps=3)

    return make


EQUAL_TO_MAML = {
    "anil of everything": lambda m: fs.anil(m, fs.mse, 0.2, 3, head="*"),
    "constant learned rates": constant_rates("tensor"),
    "constant learned rates per entry and step": constant_rates("parameter", steps=3),
    "meta-sgd at its start": lambda m: fs.meta_sgd(m, fs.mse, 0.2, 3),
    "all weight on the last step": lambda m: maml(m, objective=fs.multi_step_loss((0, 0, 1))),
    "recomputed": lambda m: maml(m, adjoint=fs.Recomputed()),
    "no momentum": lambda m: fs.MetaLearner(m, fs.mse, rule=fs.GradientDescent(0.2, momentum=0.0), steps=3),
    "scheduled, but always the same": lambda m: maml(m, adjoint=fs.Scheduled(lambda iteration: fs.Unrolled())),
    "maml++ when its schedules are over": lambda m: fs.maml_plus_plus(
        m, fs.mse, 0.2, 3, multi_step_epochs=0, first_order_epochs=0
    ),
}


@pytest.mark.parametrize("algorithm", EQUAL_TO_MAML)
def test_equal_to_maml(algorithm):
    model, tasks = SmoothNetwork(), regression_tasks()
    reference, learner = maml(model), EQUAL_TO_MAML[algorithm](model)
    torch.testing.assert_close(learner.meta_loss(tasks), reference.meta_loss(tasks), rtol=0, atol=1e-13)
    expected = meta_gradient(reference, tasks)
    came = {name: value for name, value in meta_gradient(learner, tasks).items() if name.startswith("model.")}
    assert_same(came, expected, atol=1e-12)


def test_one_reptile_step_is_joint_training():
    """With one step of gradient descent θ − φ = α∇L(θ; support)."""
    model, tasks = SmoothNetwork(), regression_tasks()
    reptile = fs.reptile(model, fs.mse, fs.GradientDescent(0.2), steps=1)
    swapped = fs.tasks.Task(tasks.query, tasks.support)
    joint = meta_gradient(fs.maml(model, fs.mse, 0.2, steps=0), swapped)
    assert_same(meta_gradient(reptile, tasks), {name: 0.2 * value for name, value in joint.items()}, atol=1e-12)


def test_strongly_regularised_imaml_is_joint_training():
    """As λ → ∞, φ → θ: the meta-gradient becomes the query gradient at θ."""
    model, tasks = SmoothNetwork(), regression_tasks()
    pulled = fs.imaml(model, fs.mse, inner_lr=1e-7, steps=5, regularization=1e6)
    joint = fs.maml(model, fs.mse, 0.2, steps=0)
    assert_same(meta_gradient(pulled, tasks), meta_gradient(joint, tasks), atol=1e-4)


def test_maml_plus_plus_follows_its_schedules():
    model, tasks = SmoothNetwork(), regression_tasks()
    steps = 3
    learner = fs.maml_plus_plus(
        model, fs.mse, 0.2, steps, iterations_per_epoch=10, multi_step_epochs=4, first_order_epochs=2
    )

    def expected(weights, adjoint):
        rule = copy.deepcopy(learner.rule)
        objective = fs.multi_step_loss(weights)
        return fs.MetaLearner(model, fs.mse, rule=rule, steps=steps, adjoint=adjoint, objective=objective)

    first_order, exact = fs.FirstOrder(), fs.Unrolled()
    third = 1 / 3
    for iteration, weights, adjoint in [
        (0, (third, third, third), first_order),
        (9, (third, third, third), first_order),
        (10, (0.25, 0.25, 0.5), first_order),
        (19, (0.25, 0.25, 0.5), first_order),
        (20, (third / 2, third / 2, 2 * third), exact),
        (40, (0, 0, 1), exact),
        (1000, (0, 0, 1), exact),
    ]:
        learner.iteration = iteration
        reference = expected(weights, adjoint)
        torch.testing.assert_close(learner.meta_loss(tasks), reference.meta_loss(tasks))
        assert_same(meta_gradient(learner, tasks), meta_gradient(reference, tasks), atol=1e-12)


def test_maml_plus_plus_accepts_other_choices():
    rule = fs.GradientDescent(0.1)
    learner = fs.maml_plus_plus(
        SmoothNetwork(), fs.mse, 0.2, 2, rule=rule, objective=fs.query_loss, adjoint=fs.Recomputed(), adapts="head.*"
    )
    tasks = regression_tasks()
    learner.iteration = 10**6
    reference = fs.MetaLearner(learner.model, fs.mse, rule=rule, steps=2, adapts="head.*")
    assert_same(meta_gradient(learner, tasks), meta_gradient(reference, tasks), atol=1e-12)
    assert moved(learner, tasks) == HEAD
