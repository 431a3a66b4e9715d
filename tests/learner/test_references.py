"""Modules that hold references to modules and parameters outside of their registries: functions, hooks, lists."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fewstep as fs
from fewstep.models.stand_in import own_copy, rebound, stand_in
from fewstep.tasks import Batch

pytestmark = pytest.mark.usefixtures("double")


@contextmanager
def doubled(module: nn.Module) -> Iterator[nn.Module]:
    """Inside, the module has twice its parameters (which is exact, and undone exactly)."""
    with torch.no_grad():
        for value in module.parameters():
            value.mul_(2)
    yield module
    with torch.no_grad():
        for value in module.parameters():
            value.div_(2)


def with_lambda_over_self() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.call = lambda x: torch.tanh(self.a(x))

        def forward(self, x: Tensor) -> Tensor:
            return self.call(x)

    return Net()


def with_default_argument() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)

            def call(x: Tensor, layer: nn.Module = self.a, *, bias: Tensor = self.a.bias) -> Tensor:
                return layer(x) * bias

            self.call = call

        def forward(self, x: Tensor) -> Tensor:
            return self.call(x)

    return Net()


def with_methods_in_a_dictionary() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.ways = {"near": [self.near], "far": (functools.partial(self.scaled, scale=3.0),)}

        def near(self, x: Tensor) -> Tensor:
            return self.a(x)

        def scaled(self, x: Tensor, scale: float) -> Tensor:
            return scale * self.a(x)

        def forward(self, x: Tensor) -> Tensor:
            return self.ways["near"][0](x) + self.ways["far"][0](x)

    return Net()


def with_callable_object() -> nn.Module:
    class Scaled:
        def __init__(self, layer: nn.Module) -> None:
            self.layer = layer

        def __call__(self, x: Tensor) -> Tensor:
            return 3 * self.layer(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.call = Scaled(self.a)

        def forward(self, x: Tensor) -> Tensor:
            return self.call(x)

    return Net()


def with_forward_on_the_instance() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

    def ten(self: nn.Linear, x: Tensor) -> Tensor:
        return 10 * F.linear(x, self.weight, self.bias)

    net[0].forward = functools.partial(ten, net[0])
    return net


def with_wrapped_forward() -> nn.Module:
    """As accelerate's hooks do it: the old bound method within a new function."""
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    old = net[0].forward

    @functools.wraps(old)
    def new(*args: Any, **kwargs: Any) -> Tensor:
        return 2 * old(*args, **kwargs)

    net[0].forward = new
    return net


def with_hooks() -> nn.Module:
    """Hooks that use the weight of another module, before and after forward."""
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    net[2].register_forward_hook(lambda module, args, output: output + args[0] @ net[0].weight)
    net[1].register_forward_pre_hook(lambda module, args: args[0] * net[2].bias)
    return net


def with_partial_of_a_parameter() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 3))
            self.call = functools.partial(F.linear, weight=self.w)

        def forward(self, x: Tensor) -> Tensor:
            return self.call(x)

    return Net()


def with_list_of_modules() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.order = [self.b, (self.a, {"last": self.b})]

        def forward(self, x: Tensor) -> Tensor:
            return self.order[1][1]["last"](self.order[1][0](self.order[0](x)))

    return Net()


HOLDING = [
    with_lambda_over_self,
    with_default_argument,
    with_methods_in_a_dictionary,
    with_callable_object,
    with_forward_on_the_instance,
    with_wrapped_forward,
    with_hooks,
    with_partial_of_a_parameter,
    with_list_of_modules,
]


@pytest.mark.parametrize("make", HOLDING)
def test_a_stand_in_computes_with_the_other_tensors_wherever_they_are_held(make: Callable[[], nn.Module]) -> None:
    module, x = make(), torch.randn(4, 3)
    plain = module(x)
    tensors = {id(value): 2 * value.detach() for value in module.parameters()}
    with doubled(module):
        expected = module(x)
    assert not torch.allclose(expected, plain)
    assert torch.equal(stand_in(module, tensors)(x), expected)
    assert torch.equal(module(x), plain)


@pytest.mark.parametrize("make", HOLDING)
def test_a_copy_does_not_refer_to_the_original(make: Callable[[], nn.Module]) -> None:
    module, x = make(), torch.randn(4, 3)
    plain = module(x)
    (twin,) = own_copy((module,))
    with doubled(module):
        expected = module(x)
        assert torch.equal(twin(x), plain)
    with doubled(twin):
        assert torch.equal(twin(x), expected)
        assert torch.equal(module(x), plain)


@pytest.mark.parametrize("make", HOLDING)
def test_adapting_equals_a_hand_written_step(make: Callable[[], nn.Module]) -> None:
    module, support = make(), Batch(torch.randn(5, 3), torch.randn(5, 3))
    learner = fs.maml(module, fs.mse, 0.1)
    adapted = learner.adapt(support)
    gradients = torch.autograd.grad(fs.mse(module, support), list(module.parameters()))
    with torch.no_grad():
        for value, gradient in zip(module.parameters(), gradients, strict=True):
            value.sub_(0.1 * gradient)
    torch.testing.assert_close(adapted(support.x), module(support.x), rtol=1e-12, atol=1e-12)


def test_what_holds_nothing_that_changes_is_itself() -> None:
    def plain(x: Tensor) -> Tensor:
        return x

    values: list[Any] = [[1, 2], {"a": (3,)}, plain, functools.partial(plain, 1), {1, 2}, torch.ones(1), nn.Tanh()]
    for value in values:
        assert rebound(value, {}) is value


def test_containers_of_every_kind_are_looked_into() -> None:
    old, new = nn.Linear(1, 1), nn.Linear(1, 1)
    changed = {id(old): new}
    assert rebound([old], changed) == [new]
    assert rebound((1, old), changed) == (1, new)
    assert rebound({old}, changed) == {new}
    assert rebound({"a": {"b": [old]}}, changed) == {"a": {"b": [new]}}
    assert rebound(functools.partial(max, old, key=old), changed).args == (new,)
    assert rebound(old.extra_repr, changed).__self__ is new


def test_cycles_come_to_an_end() -> None:
    old, new = nn.Linear(1, 1), nn.Linear(1, 1)
    value: dict[str, Any] = {"layer": old}
    value["self"] = value
    assert rebound(value, {id(old): new})["layer"] is new


def test_tensors_of_a_forward_pass_are_copied_without_their_graph() -> None:
    net = nn.Linear(2, 2)
    net.kept = {"last": [net(torch.ones(1, 2))]}
    (twin,) = own_copy((net,))
    assert torch.equal(twin.kept["last"][0], net.kept["last"][0])
    assert not twin.kept["last"][0].requires_grad


def test_what_cannot_be_copied_is_told() -> None:
    net = nn.Linear(2, 2)
    net.numbers = (n for n in range(3))
    with pytest.raises(TypeError, match=r"copy\.deepcopy failed: .*generator.*__deepcopy__"):
        fs.maml(net, fs.mse, 0.1)
