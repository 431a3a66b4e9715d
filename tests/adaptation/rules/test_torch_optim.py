"""Each rule takes the same steps as the optimiser of ``torch.optim``, for every combination of options."""

from itertools import product

import pytest
import torch

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")


def combinations(**choices):
    """Every combination of one value for each option."""
    return [dict(zip(choices, values, strict=True)) for values in product(*choices.values())]


OPTIONS = {
    "SGD": [
        o
        for o in combinations(
            lr=[0.1], momentum=[0, 0.7], dampening=[0, 0.4], nesterov=[False, True], weight_decay=[0, 0.3]
        )
        if not o["nesterov"] or (o["momentum"] and not o["dampening"])
    ],
    "Adam": combinations(lr=[0.1], betas=[(0.9, 0.999), (0.5, 0.7), (0.0, 0.9)], eps=[1e-8, 1e-2],
                         weight_decay=[0, 0.3], amsgrad=[False, True]),
    "AdamW": combinations(lr=[0.1], betas=[(0.9, 0.999), (0.5, 0.7)], eps=[1e-8, 1e-2],
                          weight_decay=[0, 0.01, 0.3], amsgrad=[False, True]),
    "RMSprop": combinations(lr=[0.1], alpha=[0.99, 0.5], eps=[1e-8, 1e-2], weight_decay=[0, 0.3],
                            momentum=[0, 0.7], centered=[False, True]),
    "Adagrad": combinations(lr=[0.1], lr_decay=[0, 0.2], initial_accumulator_value=[0, 0.5], eps=[1e-10, 1e-2],
                            weight_decay=[0, 0.3]),
    "Adadelta": combinations(lr=[1.0, 0.3], rho=[0.9, 0.5], eps=[1e-6, 1e-2], weight_decay=[0, 0.3]),
}  # fmt: skip
CASES = [pytest.param(name, options, id=f"{name} {options}") for name in OPTIONS for options in OPTIONS[name]]


def given_gradients(params, steps, sparse=False):
    """Gradients for every step; with ``sparse`` one entry of each is always exactly 0."""
    grads = [{name: torch.randn_like(value) for name, value in params.items()} for _ in range(steps)]
    if sparse:
        for step in grads:
            for value in step.values():
                value.view(-1)[0] = 0.0
    return grads


def path_of(rule, params, grads):
    state, path = rule.init(params), []
    for step, gradient in enumerate(grads):
        params, state = rule.update(params, gradient, state, step, torch.tensor(0.0))
        path.append(params)
    return path


def assert_same_path(rule, make, params, grads):
    before = {name: value.clone() for name, value in params.items()}
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    optimizer = make(list(leaves.values()))
    for ours, gradient in zip(path_of(rule, params, grads), grads, strict=True):
        for name, value in leaves.items():
            value.grad = gradient[name].clone()
        optimizer.step()
        for name, value in leaves.items():
            torch.testing.assert_close(ours[name], value.detach(), rtol=0, atol=1e-12)
    for name, value in params.items():
        assert torch.equal(value, before[name])  # nothing was modified


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "with zeros"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_ten_steps_equal_those_of_torch_optim(name, options, sparse):
    params = {"a": torch.randn(2, 3), "b": torch.randn(()), "c": torch.randn(4)}
    grads = given_gradients(params, 10, sparse)
    optimizer = getattr(torch.optim, name)
    assert_same_path(getattr(fs, name)(**options), lambda leaves: optimizer(leaves, **options), params, grads)


def test_defaults_equal_those_of_torch_optim():
    params = {"a": torch.randn(3)}
    for name in OPTIONS:
        optimizer = getattr(torch.optim, name)
        rule = fs.Adadelta() if name == "Adadelta" else getattr(fs, name)(0.05)
        make = lambda leaves: optimizer(leaves, *() if name == "Adadelta" else (0.05,))  # noqa: B023, E731
        assert_same_path(rule, make, params, given_gradients(params, 10))


def test_sgd_is_gradient_descent():
    assert fs.SGD is fs.GradientDescent


def test_carried_adam_with_weight_decay():
    params = {"a": torch.randn(3), "b.c": torch.randn(2)}
    rule = fs.CarriedAdam(params, 0.1, (0.8, 0.9), weight_decay=0.2)
    make = lambda leaves: torch.optim.Adam(leaves, 0.1, (0.8, 0.9), weight_decay=0.2)  # noqa: E731
    assert_same_path(rule, make, params, given_gradients(params, 10))


def test_a_variance_that_rounding_makes_negative_counts_as_zero():
    params = {"a": torch.zeros(1000)}
    grads = [{"a": torch.rand(1000)}] * 400
    assert torch.isfinite(path_of(fs.RMSprop(0.01, alpha=0.5, centered=True), params, grads)[-1]["a"]).all()
