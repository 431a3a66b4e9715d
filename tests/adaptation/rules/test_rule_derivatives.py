"""Every rule is differentiated exactly, also where a gradient is exactly 0."""

import pytest
import torch
from gradients.checks import (
    SmoothNetwork,
    assert_matches_differences,
    assert_same,
    central_differences,
    meta_gradient,
    regression_tasks,
)
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

import fewstep as fs
from fewstep.adaptation.rules.arithmetic import safe_sqrt

pytestmark = pytest.mark.usefixtures("double")

RULES = {
    "SGD": lambda: fs.SGD(0.2, momentum=0.7, weight_decay=0.1, nesterov=True),
    "SGD, dampening": lambda: fs.SGD(0.2, momentum=0.7, dampening=0.3),
    "Adam": lambda: fs.Adam(0.1, (0.6, 0.9), eps=1e-2, weight_decay=0.1),
    "Adam, AMSGrad": lambda: fs.Adam(0.1, (0.6, 0.5), eps=1e-2, amsgrad=True),
    "AdamW": lambda: fs.AdamW(0.1, (0.6, 0.9), eps=1e-2, weight_decay=0.3),
    "RMSprop": lambda: fs.RMSprop(0.05, 0.8, eps=1e-2, momentum=0.5, weight_decay=0.1),
    "RMSprop, centered": lambda: fs.RMSprop(0.05, 0.8, eps=1e-2, centered=True),
    "Adagrad": lambda: fs.Adagrad(0.1, lr_decay=0.2, eps=1e-2, weight_decay=0.1),
    "Adadelta": lambda: fs.Adadelta(1.0, 0.8, eps=1e-2, weight_decay=0.1),
    "chain": lambda: fs.chain(
        fs.clip_by_norm(0.8),
        fs.clip_by_value(0.5),
        fs.decay_weights(0.1),
        fs.scale_by(lambda k: 1 / (k + 1)),
        fs.SGD(0.3),
    ),
    "per parameter": lambda: fs.PerParameter({"head.*": fs.Adam(0.1, eps=1e-2), "*": fs.SGD(0.2, momentum=0.5)}),
}
SHARP = {
    "Adam": lambda: fs.Adam(0.02),
    "Adam, AMSGrad": lambda: fs.Adam(0.02, amsgrad=True),
    "AdamW": lambda: fs.AdamW(0.02),
    "RMSprop": lambda: fs.RMSprop(0.002),
    "RMSprop, centered": lambda: fs.RMSprop(0.002, centered=True, momentum=0.5),
    "Adagrad": lambda: fs.Adagrad(0.02),
    "Adadelta": lambda: fs.Adadelta(1.0),
    "clipped": lambda: fs.chain(fs.clip_by_norm(0.1), fs.SGD(0.1)),
}
"""With the usual eps."""
ADJOINTS = {"unrolled": fs.Unrolled(), "recomputed": fs.Recomputed(), "recomputed, forward": fs.Recomputed("forward")}


@pytest.mark.parametrize("vectorize", [True, False], ids=["vmap", "loop"])
@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("rule", RULES)
def test_meta_gradient_by_finite_differences_of_the_meta_loss(rule, adjoint, vectorize):
    learner = fs.MetaLearner(
        SmoothNetwork(), fs.mse, rule=RULES[rule](), steps=2, adjoint=ADJOINTS[adjoint], vectorize=vectorize
    )
    assert_matches_differences(learner, regression_tasks())


def network_with_a_dead_unit():
    """The second hidden unit is 0 for all inputs, so that the gradients of its weights are exactly 0."""
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].bias[1] = -1e3
        model[0].bias[[0, 2]] = 5.0  # the others are never 0
    return model


@pytest.mark.parametrize("vectorize", [True, False], ids=["vmap", "loop"])
@pytest.mark.parametrize("adjoint", ["unrolled", "recomputed"])
@pytest.mark.parametrize("rule", SHARP)
def test_a_dead_unit(rule, adjoint, vectorize):
    learner = fs.MetaLearner(
        network_with_a_dead_unit(), fs.mse, rule=SHARP[rule](), steps=2, adjoint=ADJOINTS[adjoint], vectorize=vectorize
    )
    tasks = regression_tasks(count=2)
    came = meta_gradient(learner, tasks)
    assert all(torch.isfinite(value).all() for value in came.values())
    assert_same(came, central_differences(learner, tasks, 1e-7), atol=1e-5)
    assert not came["model.0.weight"][1].any()
    assert came["model.0.weight"][0].any()


@pytest.mark.parametrize("rule", SHARP)
def test_a_task_without_any_gradient(rule):
    """The predictions equal all targets, so every gradient is exactly 0 in the first step."""
    model = nn.Linear(2, 1)
    learner = fs.MetaLearner(model, fs.mse, rule=SHARP[rule](), steps=2)
    tasks = regression_tasks(count=2)
    with torch.no_grad():
        tasks.support.y.copy_(model(tasks.support.x))
    came = meta_gradient(learner, tasks)
    assert all(torch.isfinite(value).all() for value in came.values())
    assert came["model.weight"].any()


@pytest.mark.parametrize("rule", SHARP)
def test_second_derivatives_at_a_gradient_of_zero(rule):
    rule = SHARP[rule]()
    params = {"a": torch.randn(3)}

    def update(gradient):
        return sum(
            value.sum() for value in rule.update(params, {"a": gradient}, rule.init(params), 0, None)[0].values()
        )

    zero = torch.zeros(3)
    for derivative in (torch.func.grad(update)(zero), torch.func.hessian(update)(zero)):
        assert torch.isfinite(derivative).all()
    rows = torch.vmap(torch.func.hessian(update))(torch.stack([zero, torch.tensor([0.0, 0.1, -0.2])]))
    assert torch.isfinite(rows).all()


class TestSafeSqrt:
    def test_values_are_those_of_sqrt(self):
        x = torch.tensor([0.0, 1e-300, 1e-8, 2.0, float("inf"), float("nan"), -1.0])
        torch.testing.assert_close(safe_sqrt(x), x.sqrt(), rtol=0, atol=0, equal_nan=True)
        assert safe_sqrt(x.float()).dtype == torch.float32

    def test_derivatives(self):
        x = (torch.rand(4) + 0.1).requires_grad_()
        assert gradcheck(safe_sqrt, x, check_forward_ad=True)
        assert gradgradcheck(safe_sqrt, x)

    def test_all_derivatives_are_0_at_0(self):
        zero = torch.zeros(())
        first = torch.func.grad(safe_sqrt)
        second, forward = torch.func.grad(first), torch.func.jacfwd(safe_sqrt)
        for derivative in (first, second, torch.func.grad(second), forward, torch.func.jacfwd(first)):
            assert derivative(zero) == 0
            assert torch.equal(torch.vmap(derivative)(torch.zeros(2)), torch.zeros(2))


def test_the_derivative_at_a_gradient_of_zero_is_exact():
    """g/(|g| + ε), which is Adam's first step, has slope 1/ε at 0."""
    rule, params = fs.Adam(0.1, eps=1e-2), {"a": torch.tensor(1.0)}

    def moved(gradient):
        return rule.update(params, {"a": gradient}, rule.init(params), 0, None)[0]["a"]

    torch.testing.assert_close(torch.func.grad(moved)(torch.tensor(0.0)), torch.tensor(-0.1 / 1e-2))


@pytest.mark.parametrize("make", [RULES["chain"], RULES["per parameter"], SHARP["RMSprop, centered"]])
def test_compiled_is_the_same(make):
    model, tasks = SmoothNetwork(), regression_tasks()
    eager = fs.MetaLearner(model, fs.mse, rule=make(), steps=2)
    traced = fs.MetaLearner(model, fs.mse, rule=make(), steps=2, compile=True)
    assert_same(meta_gradient(traced, tasks), meta_gradient(eager, tasks), atol=1e-9)
