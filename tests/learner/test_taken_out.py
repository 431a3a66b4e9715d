"""Losses may remove entries from their batch, and hooks on parameters are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_loss_that_removes_the_targets_from_a_dictionary(vectorize: bool) -> None:
    def popping(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        targets = batch.pop("labels")
        return (model(**batch) - targets).square().mean()

    def reading(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        return (model(batch["input"]) - batch["labels"]).square().mean()

    def data() -> dict[str, Tensor]:
        return {"input": torch.randn(3, 5, 2), "labels": torch.randn(3, 5, 1)}

    net, tasks = nn.Linear(2, 1), fs.Task(data(), data())
    came, expected = (fs.maml(net, loss, 0.1, 3, vectorize=vectorize).meta_loss(tasks) for loss in (popping, reading))
    torch.testing.assert_close(came, expected, rtol=0, atol=0)
    assert "labels" in tasks.support


def test_hooks_on_parameters_are_refused() -> None:
    net = nn.Linear(2, 1)
    net.weight.register_hook(lambda gradient: 0 * gradient)
    with pytest.raises(ValueError, match=r"Parameter weight has gradient hooks.*fewstep\.chain"):
        fs.maml(net, fs.mse, 0.1)
