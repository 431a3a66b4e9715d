"""Custom modules: the meta-gradient agrees with finite differences, or the module is refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from gradients.checks import assert_same, meta_gradient, regression_tasks
from gradients.own_modules import LOOPS, MODULES, mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")

WAYS: dict[str, dict[str, Any]] = {
    "vmap": {"vectorize": True},
    "loop": {"vectorize": False},
    "recomputed": {"vectorize": False, "adjoint": fs.Recomputed()},
    "recomputed, forward": {"vectorize": False, "adjoint": fs.Recomputed("forward")},
}


def tasks(count: int = 2) -> Task:
    return regression_tasks(count, inputs=4, outputs=2)


@pytest.mark.parametrize(("name", "way"), [(n, w) for n in MODULES for w in WAYS if n not in LOOPS or w != "vmap"])
def test_meta_gradient_is_right(name: str, way: str) -> None:
    module = MODULES[name]()
    before = {n: value.clone() for n, value in module.state_dict().items()}
    learns = ["embed.*", "*in_proj_weight"] if name.startswith("transformer") else "*"  # there are many groups
    learner = fs.maml(module, fs.mse, 0.1, 2, learns=learns, **WAYS[way])
    check = fs.check_gradients(learner, tasks(), directions=1, tolerance=1e-6)
    assert check.ok, check
    assert not check.unclear, check
    assert sum(abs(group.found[0]) > 1e-5 for group in check.groups) >= min(2, len(check.groups)), check
    for n, value in module.state_dict().items():
        assert torch.equal(value, before[n])


@pytest.mark.filterwarnings("ignore:Looping over tasks")
@pytest.mark.parametrize("name", LOOPS)
def test_models_that_vmap_does_not_support_are_looped_over(name: str) -> None:
    module = MODULES[name]()
    together, alone = (fs.maml(module, fs.mse, 0.1, 2, vectorize=way) for way in ("auto", False))
    made = tasks()
    assert_same(meta_gradient(together, made), meta_gradient(alone, made), atol=1e-12)


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder(), fs.Implicit(2.0)], ids=repr)
def test_compiled_sub_modules_compute_with_the_adapted_parameters(adjoint: fs.Adjoint) -> None:
    plain, compiled = mlp(), mlp()
    compiled.load_state_dict(plain.state_dict())
    compiled[0] = torch.compile(compiled[0], backend="eager")
    made = tasks()
    expected, came = (
        meta_gradient(fs.maml(net, fs.mse, 0.1, 2, adjoint=adjoint, vectorize=False), made) for net in (plain, compiled)
    )
    assert_same({n.replace("_orig_mod.", ""): g for n, g in came.items()}, expected, atol=1e-12)


class HiddenLayer(nn.Module):
    """Hides a layer in an object that is not searched."""

    class Holder:
        def __init__(self, layer: nn.Module) -> None:
            self.layer = layer

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.holder = self.Holder(self.layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.holder.layer(x) + self.layer(x)


class Written(nn.Module):
    """Writes to its input, its buffer, its parameter, or the input of another module."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.layer, self.what = nn.Linear(4, 2), what
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.what == "input":
            x = x.mul_(0.5)
        elif self.what == "item":
            x[:, 0] = 1.0
        elif self.what == "view":
            x.view(-1).clamp_(-1, 1)
        elif self.what == "buffer":
            self.mean.lerp_(x.detach().mean(0), 0.1)
        elif self.what == "new buffer":
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        elif self.what == "parameter":
            with torch.no_grad():
                self.layer.weight.clamp_(-0.1, 0.1)
        return self.layer(x)


class Reentrant(nn.Module):
    """Autograd raises an error if the input depends on parameters, and none otherwise."""

    def __init__(self, given: str) -> None:
        super().__init__()
        self.a, self.b, self.given = nn.Linear(4, 5), nn.Linear(5, 2), given

    def forward(self, x: Tensor) -> Tensor:
        if self.given == "features":
            return checkpoint(self.b, torch.tanh(self.a(x)), use_reentrant=True)
        x = x.clone().requires_grad_() if self.given == "leaf" else x
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # none of the inputs requires a gradient
            return self.b(checkpoint(lambda x: torch.tanh(self.a(x)), x, use_reentrant=True))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 3, max_norm=0.1), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).mean(1))


def spectral_in_training() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2)))


REFUSED: dict[str, tuple[Callable[[], nn.Module], type[Exception], str]] = {
    "object that hides a module": (
        HiddenLayer,
        ValueError,
        r"^model computes with the parameter layer\.\w+ itself.*attribute",
    ),
    "writes to its input": (lambda: Written("input"), ValueError, r"^model writes to its input.*mul_.*clone"),
    "writes an item": (lambda: Written("item"), ValueError, r"^model writes to its input.*__setitem__.*clone"),
    "writes through a view": (lambda: Written("view"), ValueError, r"^model writes to its input.*clamp_.*clone"),
    "writes a buffer": (lambda: Written("buffer"), ValueError, r"writes to its buffer mean.*make it a parameter"),
    "a new buffer": (lambda: Written("new buffer"), ValueError, r"writes to its buffer mean.*make it a parameter"),
    "writes a parameter": (lambda: Written("parameter"), ValueError, r"writes to parameter layer\.weight.*in-place"),
    **{
        f"reentrant checkpoint of {given}": (
            partial(Reentrant, given),
            ValueError,
            r"^model.* uses .*use_reentrant=True.*use_reentrant=False",
        )
        for given in ("features", "leaf", "data")
    },
    "spectral_norm in training": (spectral_in_training, ValueError, r"writes to its buffer 0\.parametrizations"),
    "running statistics": (
        lambda: nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)),
        ValueError,
        r"model\.1 is a BatchNorm1d.*track_running_stats=False",
    ),
}


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder()], ids=repr)
@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_modules_are_refused_by_name(name: str, adjoint: fs.Adjoint) -> None:
    make, error, words = REFUSED[name]
    module, made = make(), tasks()
    x = made.support.x.clone()
    state = {n: value.clone() for n, value in module.state_dict().items()}
    with pytest.raises(error, match=words):
        fs.maml(module, fs.mse, 0.1, adjoint=adjoint, vectorize=False).meta_loss(made)
    assert torch.equal(made.support.x, x)
    for n, value in module.state_dict().items():
        assert torch.equal(value, state[n])


@pytest.mark.parametrize("name", [n for n in REFUSED if n != "running statistics"])
def test_adapt_refuses_unsupported_modules_too(name: str) -> None:
    make, error, words = REFUSED[name]
    made = tasks()
    x = made.support.x.clone()
    with pytest.raises(error, match=words):
        fs.maml(make(), fs.mse, 0.1).adapt(made.support[0])
    assert torch.equal(made.support.x, x)


def test_embedding_that_renormalises_its_weight() -> None:
    made = Task(
        Batch(torch.randint(7, (2, 5, 3)), torch.randn(2, 5, 2)),
        Batch(torch.randint(7, (2, 5, 3)), torch.randn(2, 5, 2)),
    )
    with pytest.raises((ValueError, NotImplementedError), match="max_norm"):
        fs.maml(Tokens(), fs.mse, 0.1, vectorize=False).meta_loss(made)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_scripted_modules_are_refused() -> None:
    net = nn.Sequential(torch.jit.script(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 2))
    with pytest.raises((TypeError, ValueError), match=r"model\.0 is a"):
        fs.maml(net, fs.mse, 0.1)


def test_a_layer_outside_of_the_model_is_not_a_leak() -> None:
    """A fixed module that is not part of the model may be used."""
    outside = nn.Linear(4, 4).requires_grad_(False)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.holder = nn.Linear(4, 2), [lambda x: outside(x)]

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.tanh(self.holder[0](x)))

    assert fs.check_gradients(fs.maml(Net(), fs.mse, 0.1, 2), tasks(), directions=1).ok
