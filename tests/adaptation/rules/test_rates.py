"""A rate may be a number, a tensor, a learned parameter or a schedule, with every rule and adjoint."""

import copy

import pytest
import torch
from gradients.checks import SmoothNetwork, assert_matches_differences, assert_same, meta_gradient, regression_tasks
from torch import nn

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")

RULES = {
    "SGD": lambda lr: fs.SGD(lr),
    "momentum": lambda lr: fs.SGD(lr, momentum=0.5),
    "Adam": lambda lr: fs.Adam(lr, eps=1e-2),
    "AdamW": lambda lr: fs.AdamW(lr, eps=1e-2),
    "RMSprop": lambda lr: fs.RMSprop(lr, eps=1e-2),
    "Adagrad": lambda lr: fs.Adagrad(lr, eps=1e-2, lr_decay=0.1),
    "Adadelta": lambda lr: fs.Adadelta(lr, eps=1e-2),
    "carried Adam": lambda lr: fs.CarriedAdam(adapted(), lr, eps=1e-2),
    "chain": lambda lr: fs.chain(fs.clip_by_norm(1.0), fs.SGD(lr)),
    "per parameter": lambda lr: fs.PerParameter({"head.*": fs.SGD(lr), "*": fs.Adam(0.1, eps=1e-2)}),
}
ADJOINTS = {"unrolled": fs.Unrolled(), "recomputed": fs.Recomputed(), "recomputed, forward": fs.Recomputed("forward")}


def adapted():
    return {name: value for name, value in SmoothNetwork().named_parameters() if value.requires_grad}


def learner_with(rule, steps=2, **choices):
    torch.manual_seed(1)
    return fs.MetaLearner(SmoothNetwork(), fs.mse, rule=rule, steps=steps, **choices)


def parameter(value):
    return nn.Parameter(torch.tensor(value))


@pytest.mark.parametrize("rule", RULES)
def test_every_kind_of_rate_takes_the_same_steps(rule):
    kinds = [0.1, torch.tensor(0.1), parameter(0.1), lambda step: 0.1, lambda step: torch.tensor(0.1)]
    kinds += [fs.LearnedRate(0.1), fs.LearnedRate(0.1, positive=True)]
    tasks = regression_tasks(count=2)
    losses = [learner_with(RULES[rule](kind)).score(tasks) for kind in kinds]
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], rtol=0, atol=1e-12)
    assert (losses[0][:, 0] - losses[0][:, -1]).abs().min() > 1e-4


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("rule", [name for name in RULES if name != "carried Adam"])
def test_the_gradient_of_a_learned_rate_by_finite_differences(rule, adjoint):
    learner = learner_with(RULES[rule](fs.LearnedRate(0.2, positive=True)), adjoint=ADJOINTS[adjoint])
    names = [name for name, _ in learner.named_parameters() if "exponent" in name]
    assert len(names) == 1
    tasks = regression_tasks(count=2)
    assert_matches_differences(learner, tasks)
    assert meta_gradient(learner, tasks)[names[0]].abs() > 1e-5


@pytest.mark.parametrize("vectorize", [True, False], ids=["vmap", "loop"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: fs.SGD(parameter(0.2), parameter(0.6), weight_decay=parameter(0.1)),
        lambda: fs.AdamW(parameter(0.2), eps=1e-2, weight_decay=fs.LearnedRate(0.1)),
        lambda: fs.RMSprop(parameter(0.02), eps=0.1, momentum=parameter(0.3), weight_decay=parameter(0.1)),
        lambda: fs.chain(
            fs.clip_by_norm(parameter(0.3)),
            fs.clip_by_value(parameter(0.2)),
            fs.decay_weights(parameter(0.1)),
            fs.scale_by(parameter(0.5)),
            fs.SGD(0.5),
        ),
        lambda: fs.LearnedRates(adapted(), 0.2, per="parameter", steps=2, positive=True),
        lambda: fs.LearnedRates(adapted(), 0.2, per="tensor", positive=True),
    ],
    ids=["SGD", "AdamW", "RMSprop", "chain", "rate per entry", "rate per tensor"],
)
def test_the_gradient_of_every_learned_number_by_finite_differences(make, vectorize):
    learner = learner_with(make(), vectorize=vectorize)
    tasks = regression_tasks(count=2)
    assert_matches_differences(learner, tasks)
    of_rule = {name: value for name, value in meta_gradient(learner, tasks).items() if name.startswith("rule.")}
    assert of_rule
    assert min(value.abs().max() for value in of_rule.values()) > 1e-6


def test_first_order_learns_the_rate_too():
    tasks = regression_tasks(count=2)
    learner = learner_with(fs.SGD(parameter(0.2)), steps=1, adjoint=fs.FirstOrder())
    exact = learner_with(fs.SGD(parameter(0.2)), steps=1)
    assert_same({"lr": meta_gradient(learner, tasks)["rule.lr"]}, {"lr": meta_gradient(exact, tasks)["rule.lr"]})


@pytest.mark.parametrize("choices", [{}, {"vectorize": False}, {"chunk": 1}, {"compile": True}], ids=str)
def test_a_fixed_tensor_gets_its_gradient(choices):
    """For every way of batching tasks; the momentum is not a leaf but computed from one."""
    tasks = regression_tasks(count=2)
    expected = meta_gradient(learner_with(fs.SGD(parameter(0.2), parameter(0.3))), tasks)
    lr, other = torch.tensor(0.2, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    learner = learner_with(fs.SGD(lr, other - 0.2), **choices)
    for times in (1, 2):
        if times == 1:
            learner.meta_gradient(tasks)
        else:
            learner.meta_loss(tasks).backward()
        torch.testing.assert_close(lr.grad, times * expected["rule.lr"], rtol=0, atol=1e-10)
        torch.testing.assert_close(other.grad, times * expected["rule.momentum"], rtol=0, atol=1e-10)
    assert not any("rule" in name for name in (*dict(learner.named_parameters()), *learner.state_dict()))


def test_a_rate_is_differentiated_by_torch_func():
    batch = torch.rand(3)

    def loss(params, batch):
        return (params["w"].sin() * batch).sum()

    def end(lr):
        return fs.adapt(loss, {"w": torch.ones(3)}, batch, fs.Adam(lr), 2)["w"].sum()

    slope = (end(torch.tensor(0.1 + 1e-6)) - end(torch.tensor(0.1 - 1e-6))) / 2e-6
    torch.testing.assert_close(torch.func.grad(end)(torch.tensor(0.1)), slope, rtol=0, atol=1e-7)
    rates = torch.tensor([0.1, 0.2])
    torch.testing.assert_close(torch.vmap(end)(rates), torch.stack([end(rate) for rate in rates]))


def test_a_schedule_is_called_at_every_step():
    asked = []

    def schedule(step):
        asked.append(step)
        return [0.4, 0.2, 0.0][step]

    params, batch = {"w": torch.tensor(1.0)}, torch.tensor(1.0)
    came = fs.adapt(lambda params, x: (params["w"] * x).square() / 2, params, batch, fs.SGD(schedule), 3)
    assert asked == [0, 1, 2]
    torch.testing.assert_close(came["w"], torch.tensor(0.6 * 0.8))


def test_a_module_is_a_learned_schedule():
    class Halving(nn.Module):
        def __init__(self):
            super().__init__()
            self.start = nn.Parameter(torch.tensor(0.3))

        def forward(self, step):
            return self.start * 0.5**step

    learner = learner_with(fs.SGD(Halving()), steps=3)
    assert "rule.lr.start" in dict(learner.named_parameters())
    assert_matches_differences(learner, regression_tasks(count=2))


class TestLearnedRate:
    @pytest.mark.parametrize("positive", [True, False])
    @pytest.mark.parametrize("initial", [0.1, 1e-4, 3.0, 0.3])
    def test_starts_exactly_at_its_initial_value(self, initial, positive):
        assert fs.LearnedRate(initial, positive)() == initial
        assert fs.LearnedRate(initial, positive).float()() == torch.tensor(initial, dtype=torch.float32)
        rates = fs.LearnedRates({"a.b": torch.ones(2)}, initial, per="parameter", positive=positive)
        assert (rates.rate("a.b") == initial).all()

    def test_stays_positive(self):
        rate, rates = fs.LearnedRate(0.1, positive=True), fs.LearnedRates(adapted(), 0.1, "tensor", positive=True)
        optimizer = torch.optim.SGD([*rate.parameters(), *rates.parameters()], lr=1.0)
        for _ in range(5):
            optimizer.zero_grad()
            (rate() + sum(rates.rate(name) for name in adapted())).backward()
            for value in (*rate.parameters(), *rates.parameters()):
                value.grad.fill_(1.0)
            optimizer.step()
        assert 0 < rate() < 1e-3
        assert all(0 < rates.rate(name) < 1e-3 for name in adapted())

    def test_a_loaded_rate_does_not_depend_on_its_initial_value(self):
        for make in (
            lambda initial: fs.Adam(fs.LearnedRate(initial, positive=True)),
            lambda initial: fs.Adam(fs.LearnedRate(initial)),
            lambda initial: fs.LearnedRates(adapted(), initial, "tensor", 2, positive=True),
            lambda initial: fs.PerParameter({"head.*": fs.SGD(parameter(initial)), "*": fs.chain(fs.SGD(0.1))}),
        ):
            one, other, tasks = learner_with(make(0.3)), learner_with(make(0.1)), regression_tasks(count=2)
            with torch.no_grad():
                for value in one.rule.parameters():
                    value.mul_(1.1).add_(0.02)
            assert (one.score(tasks) - other.score(tasks)).abs().max() > 1e-5
            other.load_state_dict(copy.deepcopy(one.state_dict()))
            torch.testing.assert_close(one.score(tasks), other.score(tasks), rtol=0, atol=0)


def test_rates_of_another_precision_keep_the_dtype_of_parameters():
    params = {"a": torch.randn((), dtype=torch.float32), "b": torch.randn(2, dtype=torch.float32)}
    grads = {name: torch.ones_like(value) for name, value in params.items()}
    rate = torch.tensor(0.1, dtype=torch.float64)
    rules = [make(rate) for make in (fs.SGD, fs.Adam, fs.AdamW, fs.RMSprop, fs.Adagrad, fs.Adadelta)]
    rules += [fs.SGD(rate, rate, weight_decay=rate)]
    rules += [fs.chain(part(rate), fs.SGD(0.1)) for part in (fs.clip_by_norm, fs.clip_by_value, fs.scale_by)]
    rules += [fs.chain(fs.decay_weights(rate), fs.SGD(0.1))]
    for rule in rules:
        moved, _ = rule.update(params, grads, rule.init(params), 0, torch.tensor(0.0))
        assert {value.dtype for value in moved.values()} == {torch.float32}, rule


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: fs.SGD("0.1"), TypeError, r"GradientDescent: lr must be a number.*schedule.*got lr='0.1' \(str\)"),
        (lambda: fs.SGD(True), TypeError, r"lr must be a number"),
        (lambda: fs.SGD(float("nan")), ValueError, r"lr must be finite and positive; got lr=nan"),
        (lambda: fs.Adam(float("inf")), ValueError, r"Adam: lr must be finite and positive; got lr=inf"),
        (lambda: fs.SGD(torch.tensor(0.0)), ValueError, r"lr must be finite and positive; got lr=0.0"),
        (lambda: fs.SGD(parameter(-0.1)), ValueError, r"lr must be finite and positive; got lr=-0.1"),
        (lambda: fs.SGD(torch.ones(2)), ValueError, r"floating-point scalar.*shape \(2,\).*LearnedRates"),
        (lambda: fs.SGD(torch.tensor(1)), ValueError, r"floating-point scalar.*int64"),
        (lambda: fs.SGD(fs.LearnedRate), TypeError, r"lr must be a number.*got lr=<class"),
        (lambda: fs.SGD(0.1, -0.5), ValueError, r"momentum must be finite and 0 or more; got momentum=-0.5"),
        (lambda: fs.SGD(0.1, weight_decay=-1), ValueError, r"weight_decay must be.*got weight_decay=-1"),
        (lambda: fs.SGD(0.1, nesterov=True), ValueError, r"nesterov=True needs momentum"),
        (lambda: fs.SGD(0.1, 0.9, dampening=0.1, nesterov=True), ValueError, r"no dampening; got.*dampening=0.1"),
        (lambda: fs.Adam(0.1, (0.9, 1.0)), ValueError, r"betas\[1\] must be below 1 and 0 or more; got betas\[1\]=1.0"),
        (lambda: fs.Adam(0.1, eps=-1e-8), ValueError, r"Adam: eps must be"),
        (lambda: fs.Adam(0.1, eps=parameter(1e-8)), TypeError, r"Adam: eps must be a number"),
        (lambda: fs.AdamW(0.1, weight_decay=-1.0), ValueError, r"AdamW: weight_decay must be"),
        (lambda: fs.RMSprop(0.1, alpha=1.5), ValueError, r"RMSprop: alpha must be below 1"),
        (lambda: fs.RMSprop(0.0), ValueError, r"RMSprop: lr must be finite and positive; got lr=0.0"),
        (lambda: fs.Adagrad(0.1, lr_decay=-1.0), ValueError, r"Adagrad: lr_decay must be"),
        (lambda: fs.Adagrad(0.1, initial_accumulator_value=-1.0), ValueError, r"initial_accumulator_value must be"),
        (lambda: fs.Adadelta(rho=1.0), ValueError, r"Adadelta: rho must be below 1"),
        (lambda: fs.LearnedRate(-0.1), ValueError, r"LearnedRate: initial must be.*0 or more; got initial=-0.1"),
        (lambda: fs.LearnedRate(0.0, positive=True), ValueError, r"LearnedRate: initial must be.*positive"),
        (lambda: fs.LearnedRates(adapted(), 0.0, "tensor", positive=True), ValueError, r"LearnedRates: lr.*positive"),
        (lambda: fs.LearnedRates(adapted(), float("nan"), "tensor"), ValueError, r"LearnedRates: lr must be finite"),
        (lambda: fs.clip_by_norm(0.0), ValueError, r"clip_by_norm: max_norm must be finite and positive; got max_norm"),
        (lambda: fs.scale_by(None), TypeError, r"scale_by: factor must be a number.*got factor=None"),
    ],
)
def test_invalid_numbers_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (None, TypeError, r"GradientDescent: lr, a schedule, at step 1 must be a number"),
        (-0.1, ValueError, r"lr, a schedule, at step 1 must be finite and 0 or more"),
        (torch.ones(2), ValueError, r"lr, a schedule, at step 1 must be a floating-point scalar"),
    ],
)
def test_a_schedule_that_returns_no_rate_is_refused(value, error, words):
    learner = learner_with(fs.SGD(lambda step: value if step else 0.1))
    with pytest.raises(error, match=words):
        learner.meta_loss(regression_tasks(count=2))


@pytest.mark.parametrize(
    "rate", [parameter(0.1), torch.tensor(0.1, requires_grad=True), fs.LearnedRate(0.1)], ids=["p", "t", "m"]
)
def test_implicit_refuses_a_learned_rate(rate):
    with pytest.raises(ValueError, match=r"Implicit gives no gradient to the rule's learned parameters \['lr"):
        learner_with(fs.SGD(rate), adjoint=fs.Implicit())
    learner_with(fs.SGD(torch.tensor(0.1)), adjoint=fs.Implicit())


def test_a_rate_on_another_device_is_refused():
    learner = learner_with(fs.SGD(fs.LearnedRate(0.1).to("meta")))
    with pytest.raises(ValueError, match=r"model is on cpu and the rule's lr\.value on meta.*learner\.to\('cpu'\)"):
        learner.meta_loss(regression_tasks(count=2))


def test_a_learned_rate_is_trained():
    learner = learner_with(fs.SGD(fs.LearnedRate(0.01, positive=True)))
    optimizer, tasks = torch.optim.Adam(learner.rule.parameters(), 0.1), regression_tasks()
    before = learner.meta_loss(tasks).item()
    for _ in range(10):
        optimizer.zero_grad()
        learner.meta_gradient(tasks)
        optimizer.step()
    assert learner.rule.lr().item() != pytest.approx(0.01, abs=1e-3)
    assert learner.meta_loss(tasks).item() < before


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (fs.SGD(0.1), "GradientDescent(lr=0.1)"),
        (fs.SGD(0.1, 0.9, nesterov=True), "GradientDescent(lr=0.1, momentum=0.9, nesterov=True)"),
        (fs.Adam(nn.Parameter(torch.tensor(0.5))), "Adam(lr=parameter(0.5), betas=(0.9, 0.999))"),
        (fs.RMSprop(torch.tensor(0.5), centered=True), "RMSprop(lr=tensor(0.5), centered=True)"),
        (fs.clip_by_value(0.5), "clip_by_value(limit=0.5)"),
        (fs.AdamW(0.1), "AdamW(lr=0.1, betas=(0.9, 0.999), weight_decay=0.01)"),
    ],
)
def test_repr_shows_the_options(rule, words):
    assert repr(rule) == words
