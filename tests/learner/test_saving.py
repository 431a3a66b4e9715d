"""``adapt`` returns a plain module, which is saved, loaded and pickled like any other."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

import fewstep as fs
from fewstep.baselines import FineTuned, MatchingNetwork, PrototypicalNetwork
from fewstep.models import ContextConv4, Conv4, norm_layer

POLICIES = ["batch", "support", "running", "per_step", "group", "layer", "none"]


def network(policy: str = "batch") -> Conv4:
    return Conv4(1, 3, filters=4, image_size=16, norm=norm_layer(policy, steps=2))


def batch(each: int) -> fs.tasks.Batch:
    return fs.tasks.Batch(torch.rand(3 * each, 1, 16, 16), torch.arange(3).repeat(each))


def by_gradient(policy: str) -> fs.MetaLearner:
    model = network(policy)
    adapts = ["*", "!*.norm.*"] if any(".norm." in name for name, _ in model.named_parameters()) else "*"
    learner = fs.maml(model, fs.cross_entropy, 0.3, steps=2, adapts=adapts)
    with torch.no_grad():  # away from the initialisation, where the steps of a norm are all alike
        for value in [*learner.parameters(), *learner.buffers()]:
            value.add_(0.1 * torch.rand_like(value))
    return learner.eval()


def round_trip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("through", [round_trip, lambda state: load(save(state))], ids=["torch", "safetensors"])
def test_the_state_of_an_adapted_model_fits_a_fresh_one(policy: str, through: Callable[[dict], dict]) -> None:
    model, x = by_gradient(policy).adapt(batch(2)), torch.rand(5, 1, 16, 16)
    fresh = network(policy).eval()
    assert not torch.allclose(fresh(x), model(x))
    fresh.load_state_dict(through(model.state_dict()))
    torch.testing.assert_close(fresh(x), model(x), rtol=0, atol=0)


def made_by() -> dict[str, Callable[[], nn.Module]]:
    context = lambda: fs.cavia(ContextConv4(network(), 4, size=5), fs.cross_entropy, 0.3, 2)  # noqa: E731
    fitted = lambda: FineTuned(network().encoder(), nn.Linear(4, 3), 3, fs.GradientDescent(0.1), steps=3)  # noqa: E731
    return {
        **{policy: lambda policy=policy: by_gradient(policy) for policy in POLICIES},
        "cavia": context,
        "fine-tuned": fitted,
        "prototypical": lambda: PrototypicalNetwork(network().encoder(), 3),
        "matching": lambda: MatchingNetwork(network().encoder(), 3),
    }


@pytest.mark.parametrize("kind", made_by())
def test_a_whole_adapted_model_is_pickled(kind: str) -> None:
    model, x = made_by()[kind]().adapt(batch(2)).eval(), torch.rand(5, 1, 16, 16)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for again in (torch.load(file, weights_only=False), pickle.loads(pickle.dumps(model))):
        assert type(again) is type(model)
        torch.testing.assert_close(again(x), model(x), rtol=0, atol=0)


def test_a_loaded_model_trains_on() -> None:
    model = by_gradient("support").adapt(batch(2))
    fresh = network("support")
    fresh.load_state_dict(round_trip(model.state_dict()))
    optimizer = torch.optim.SGD(fresh.parameters(), 0.01)
    more = batch(4)
    before = fs.cross_entropy(fresh, more)
    for _ in range(10):
        optimizer.zero_grad()
        fs.cross_entropy(fresh, more).backward()
        optimizer.step()
    assert fs.cross_entropy(fresh, more) < before


def test_another_number_of_steps_is_refused() -> None:
    state = by_gradient("per_step").adapt(batch(2)).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch for body.0.norm.weight"):
        Conv4(1, 3, filters=4, image_size=16, norm=norm_layer("per_step", steps=5)).load_state_dict(state)
