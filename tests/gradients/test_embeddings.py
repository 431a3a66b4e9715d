"""Embeddings: the meta-gradient equals that of a plain loop, in every mode and for every option of the table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gradients.checks import assert_same, by_hand, meta_gradient
from torch import Tensor, nn
from torch.nn import functional as F

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")

WAYS: dict[str, dict[str, Any]] = {
    "vmap": {"vectorize": True},
    "loop": {"vectorize": False},
    "recomputed": {"vectorize": True, "adjoint": fs.Recomputed()},
    "recomputed, forward": {"vectorize": False, "adjoint": fs.Recomputed("forward")},
}


class Tokens(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 3, **options), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.table(x)).mean(1))


class LastRowPads(nn.Module):
    """``functional.embedding`` with its padding counted from the end."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(7, 3)), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(F.embedding(x, self.table, padding_idx=-1)).mean(1))


MODULES = {
    "plain": Tokens,
    "padding": lambda: Tokens(padding_idx=0),
    "padding counted from the end": lambda: Tokens(padding_idx=-1),
    "padding of the function": LastRowPads,
    "scaled by frequency": lambda: Tokens(scale_grad_by_freq=True),
}


def sentences() -> Task:
    """Every token occurs, some of them often."""

    def batch(examples: int) -> Batch:
        tokens = torch.arange(2 * examples * 3).view(2, examples, 3) ** 2 % 7
        return Batch((tokens + torch.arange(3)) % 7, torch.randn(2, examples, 2))

    return Task(batch(4), batch(5))


def known(name: str, way: str) -> Any:
    if name == "scaled by frequency" and WAYS[way]["vectorize"]:
        return pytest.mark.xfail(strict=True, raises=RuntimeError, reason="refused under vmap: its derivative is wrong")
    return ()


@pytest.mark.parametrize(
    ("name", "way"), [pytest.param(name, way, marks=known(name, way)) for name in MODULES for way in WAYS]
)
def test_meta_gradient_equals_that_of_a_plain_loop(name: str, way: str) -> None:
    net, tasks = MODULES[name](), sentences()
    expected = by_hand(net, tasks)
    assert all(gradient.abs().max() > 1e-5 for gradient in expected.values())
    assert_same(meta_gradient(fs.maml(net, fs.mse, 0.1, 2, **WAYS[way]), tasks), expected, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        pytest.param(
            "padding",
            marks=pytest.mark.xfail(
                strict=True, reason="moves the row of the padding, which by design has no gradient"
            ),
        ),
    ],
)
def test_check_gradients_finds_nothing_wrong(name: str) -> None:
    check = fs.check_gradients(fs.maml(MODULES[name](), fs.mse, 0.1, 2), sentences(), directions=1)
    assert check.ok, check


def test_sparse_gradients_are_refused() -> None:
    with pytest.raises(ValueError, match="sparse"):
        fs.maml(Tokens(sparse=True), fs.mse, 0.1, vectorize=False).meta_loss(sentences())
