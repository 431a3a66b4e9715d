"""The derivatives of convolution, normalisation and pooling against PyTorch's, in every combination of transforms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fewstep.models.second_order import (
    convolve,
    max_pool,
    normalization,
    normalize,
    normalize_and_pool,
    pooling,
    products,
)

CASES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "normalize": (
        lambda x: normalize(x, 1e-3),
        lambda x: functional.batch_norm(x, None, None, training=True, eps=1e-3),
    ),
    "max_pool": (max_pool, lambda x: functional.max_pool2d(x, 2)),
    "normalize_and_pool": (
        lambda x: normalize_and_pool(x, 1e-3),
        lambda x: functional.max_pool2d(functional.batch_norm(x, None, None, training=True, eps=1e-3), 2),
    ),
}
STRIDED = torch.linspace(-1, 1, 54, dtype=torch.float64).sin().view(2, 3, 3, 3)
CASES["convolve"] = (lambda x: convolve(x, STRIDED, 2), lambda x: functional.conv2d(x, STRIDED, None, 2, 1))
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
case = pytest.mark.parametrize("name", CASES)
for_a_compiler = pytest.mark.parametrize("fused", [False, True], ids=["by kernels", "elementwise"])
layout = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture
def _fused(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As traced by a compiler for GPUs, or not."""
    for module in normalization, pooling:
        monkeypatch.setattr(module, "fused", lambda x: fused)


def images(layout: str, seed: int = 0, size: tuple[int, ...] = (4, 3, 5, 7)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, dtype=torch.float64, generator=generator)
    return x.contiguous(memory_format=LAYOUTS[layout])


def gradient(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return torch.func.grad(lambda x: (function(x).sin() * function(x.square())).sum())


@case
@layout
@for_a_compiler
@pytest.mark.usefixtures("_fused")
def test_finite_differences(name: str, layout: str) -> None:
    x = images(layout, size=(2, 3, 3, 5)).requires_grad_()
    ours = CASES[name][0]
    assert torch.autograd.gradcheck(ours, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(ours, x, check_fwd_over_rev=True, check_rev_over_rev=True)


@case
@layout
@for_a_compiler
@pytest.mark.usefixtures("_fused")
def test_forward_over_reverse_and_double_backward_agree_with_pytorch(name: str, layout: str) -> None:
    x, v = images(layout), images(layout, seed=1)
    ours, theirs = (gradient(function) for function in CASES[name])
    torch.testing.assert_close(torch.func.jvp(ours, (x,), (v,)), torch.func.jvp(theirs, (x,), (v,)))
    torch.testing.assert_close(torch.func.vjp(ours, x)[1](v), torch.func.vjp(theirs, x)[1](v))


@case
@for_a_compiler
@pytest.mark.usefixtures("_fused")
def test_tasks_under_vmap_do_not_affect_each_other(name: str) -> None:
    x = torch.stack([images("contiguous", seed) for seed in range(3)])
    v = x.flip(0)
    ours, theirs = (gradient(function) for function in CASES[name])

    def product(x: Tensor, v: Tensor) -> Tensor:
        return torch.func.jvp(ours, (x,), (v,))[1]

    def double_backward(x: Tensor, v: Tensor) -> Tensor:
        return torch.func.vjp(ours, x)[1](v)[0]

    expected = torch.stack([torch.func.jvp(theirs, (x[i],), (v[i],))[1] for i in range(3)])
    for function in (product, double_backward):
        torch.testing.assert_close(torch.vmap(function)(x, v), expected)
        moved = torch.vmap(function, in_dims=1, out_dims=1)(x.movedim(0, 1), v.movedim(0, 1))
        torch.testing.assert_close(moved, expected.movedim(0, 1))
    shared = torch.vmap(product, in_dims=(None, 0))(x[0], v)
    torch.testing.assert_close(shared, torch.stack([product(x[0], v[i]) for i in range(3)]))


def test_the_layout_of_the_images_is_kept() -> None:
    x = images("channels last").requires_grad_()
    assert max_pool(x).is_contiguous(memory_format=torch.channels_last)
    (grad,) = torch.autograd.grad(max_pool(x).square().sum(), x, create_graph=True)
    assert grad.is_contiguous(memory_format=torch.channels_last)
    (second,) = torch.autograd.grad(grad.square().sum(), x)
    assert second.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shared", [True, False], ids=["one weight for all tasks", "a weight for each task"])
@pytest.mark.parametrize("few_rows", [0, 10**9], ids=["by kernels", "by products"])
@pytest.mark.parametrize("at_once", [1, 10**9], ids=["task by task", "at once"])
def test_convolution_in_images_and_weights(
    stride: int, shared: bool, few_rows: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "FEW_ROWS", {"cpu": few_rows})
    monkeypatch.setattr(products, "AT_ONCE", (at_once, at_once))
    generator = torch.Generator().manual_seed(0)
    tasks, options = 3, {"dtype": torch.float64, "generator": generator}
    x, dx = torch.randn(2, tasks, 4, 3, 6, 5, **options)
    w, dw = torch.randn(2, *([] if shared else [tasks]), 2, 3, 3, 3, **options)

    def second(function):
        def gradient(x, w):
            return torch.func.grad(lambda x, w: function(x, w).square().sin().sum(), argnums=(0, 1))(x, w)

        def both(x, w, dx, dw):
            return torch.func.jvp(gradient, (x, w), (dx, dw))[1], torch.func.vjp(gradient, x, w)[1]((dx, dw))

        return torch.vmap(both, in_dims=(0, None if shared else 0, 0, None if shared else 0))(x, w, dx, dw)

    ours = second(lambda x, w: convolve(x, w, stride))
    theirs = second(lambda x, w: functional.conv2d(x, w, None, stride, 1))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours[0], ours[1])  # second derivatives are symmetric
    assert torch.autograd.gradgradcheck(
        lambda x, w: convolve(x, w, stride), (x[0].requires_grad_(), w.view(-1, 2, 3, 3, 3)[0].requires_grad_())
    )
