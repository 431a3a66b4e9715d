"""A stand-in computes with other tensors in place of a module's parameters, and does not modify the module."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.models.stand_in import origin, stand_in

pytestmark = pytest.mark.usefixtures("double")


def others(module: nn.Module) -> dict[int, Tensor]:
    """Twice each parameter of the module, by ``id``."""
    return {id(value): 2 * value.detach() for value in module.parameters()}


def doubled(module: nn.Module) -> nn.Module:
    """A deep copy of the module with twice its parameters: the expected result."""
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for value in twin.parameters():
            value.mul_(2)
    return twin


def everything(module: nn.Module) -> list[dict[str, Any]]:
    """The attributes of all modules, with their dictionaries of parameters, buffers and modules copied."""
    return [{n: dict(v) if isinstance(v, dict) else v for n, v in vars(m).items()} for m in module.modules()]


class Tied(nn.Module):
    """One parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


class UnderTwoNames(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(3, 3), nn.Linear(3, 3)
        self.net = nn.Sequential(self.body, nn.Tanh(), self.head)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.body(x)


class Repeating(nn.Module):
    """A list that holds one layer twice, and whose last entry has no parameters."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(3, 3)
        self.layers = nn.ModuleList([layer, nn.Tanh(), layer])

    def forward(self, x: Tensor) -> Tensor:
        return functools.reduce(lambda h, layer: layer(h), self.layers, x)


class Recurrent(nn.Module):
    """An LSTM, which also keeps its weights in a list."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell = kind(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x[None])[0]


MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(3, 3),
    "tied parameters": Tied,
    "module under two names": UnderTwoNames,
    "repeated layer": Repeating,
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "RNN": lambda: Recurrent(nn.RNN),
    "weight_norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
    "no sub-module in one place": lambda: nn.Sequential(nn.Linear(3, 3), nn.Identity()),
}


@pytest.mark.parametrize("name", MODULES)
def test_computes_with_the_given_tensors_and_modifies_nothing(name: str) -> None:
    module, x = MODULES[name](), torch.randn(4, 3)
    before, plain = everything(module), module(x)
    twin = stand_in(module, others(module))
    assert type(twin) is type(module)
    torch.testing.assert_close(twin(x), doubled(module)(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(twin(x), plain)
    assert torch.equal(module(x), plain)
    for now, then in zip(everything(module), before, strict=True):
        assert now.keys() == then.keys()
        for key, value in then.items():
            same = now[key] is value or (isinstance(value, (dict, bool)) and now[key] == value)
            assert same, f"{key} of the module has changed"


def test_shared_objects_stay_shared() -> None:
    module = UnderTwoNames()
    twin = stand_in(module, others(module))
    assert twin.net[0] is twin.body is not module.body
    assert twin.net[2] is twin.head
    tied = stand_in(Tied(), {})
    assert tied.a.weight is tied.b.weight
    layers = stand_in(Repeating(), {}).layers
    assert layers[0] is layers[2]


def test_only_the_given_tensors_are_replaced() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    weight = torch.randn(3, 3)
    twin = stand_in(module, {id(module[0].weight): weight})
    assert twin[0].weight is weight
    assert twin[0].bias is module[0].bias
    assert twin[1].running_mean is module[1].running_mean


def test_gradients_flow_to_the_given_tensors_only() -> None:
    module, x = Tied(), torch.randn(4, 3)
    tensors = {key: value.requires_grad_() for key, value in others(module).items()}
    stand_in(module, tensors)(x).square().sum().backward()
    reference = doubled(module)
    reference(x).square().sum().backward()
    for own, value in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(tensors[id(own)].grad, value.grad)
        assert own.grad is None


def test_the_mode_of_a_stand_in_is_its_own() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5).eval())
    assert not any(part.training for part in stand_in(module, {}, training=False).modules())
    assert [part.training for part in stand_in(module, {})] == [True, False]
    assert [part.training for part in module] == [True, False]
    twin = stand_in(module, {}).eval()
    assert module.training
    assert not twin[0].training


def test_origin() -> None:
    module = Tied()
    twin = stand_in(module, {})
    assert origin(twin) is module
    assert origin(stand_in(twin, {}).a) is module.a
    assert origin(module) is module


# What a forward pass assigns


class Keeping(nn.Module):
    """Stores its output, counts its calls and replaces a buffer and a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.calls = nn.Linear(3, 3), 0
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.attention = torch.tanh(self.a(x))
        self.calls += 1
        self.seen = self.attention.detach()[0]
        self.a.temporary = "here"
        self.late = nn.Linear(3, 3)
        del self.late
        return self.attention


def test_attributes_set_in_forward_stay_on_the_stand_in() -> None:
    module = Keeping()
    before = everything(module)
    twin = stand_in(module, others(module))
    output = twin(torch.randn(4, 3))
    assert twin.attention is output
    assert (twin.calls, twin.a.temporary) == (1, "here")
    assert torch.equal(twin.seen, output.detach()[0])
    assert everything(module)[0].keys() == before[0].keys()
    assert module.calls == 0
    assert not module.seen.any()
    assert not hasattr(module, "attention")
    assert not hasattr(module.a, "temporary")


def test_a_stand_in_can_be_used_after_others_were_made() -> None:
    """Two stand-ins at once, each with its own tensors."""
    module, x = UnderTwoNames(), torch.randn(4, 3)
    first, second = stand_in(module, others(module)), stand_in(module, {})
    expected = doubled(module)(x)
    plain = module(x)
    for _ in range(2):
        torch.testing.assert_close(second(x), plain)
        torch.testing.assert_close(first(x), expected)


@pytest.mark.parametrize("name", MODULES)
def test_functional_call_gives_the_same(name: str) -> None:
    """Equal to functional_call where that works."""
    module, x = MODULES[name](), torch.randn(4, 3)
    named = {n: 2 * p.detach() for n, p in module.named_parameters()}
    expected = torch.func.functional_call(copy.deepcopy(module), named, (x,), tie_weights=True)
    torch.testing.assert_close(stand_in(module, others(module))(x), expected, rtol=1e-12, atol=1e-12)
