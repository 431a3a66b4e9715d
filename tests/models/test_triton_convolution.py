"""Convolution in Triton: on a CUDA device, or without one by Triton's interpreter, if Triton is installed."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fewstep.models.second_order import products, triton_kernels, triton_tiles
from fewstep.models.second_order import triton_convolution as kernels
from fewstep.models.second_order.operation import channels_first, channels_last

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"

if importlib.util.find_spec("triton") and not CUDA:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")  # when its own functions are defined, and when these here are
        triton_kernels.compiled_kernels()


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch):
    if not CUDA:
        monkeypatch.setenv("TRITON_INTERPRET", "1")


needs_triton = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="needs Triton")

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")  # interpreter's

TOLERANCES = {"ieee": 1e-6, "tf32": 2e-3, "tf32x3": 1e-5, "bf16": 1e-2}
PRECISIONS = (
    list(TOLERANCES) if CUDA else ["ieee", "tf32"]
)  # to the interpreter these two are one, and bf16 is integers

TINY = [16, 16, 16, 2, 1]

SIZES = {  # tasks, examples, channels, filters, height, width, size, stride, tile
    "one channel": (2, 2, 1, 20, 8, 8, 3, 2, [32, 32, 16, 2, 1]),
    "colours": (2, 1, 3, 32, 7, 5, 3, 1, [32, 32, 32, 2, 1]),
    "even parts": (2, 2, 32, 16, 5, 5, 3, 2, [16, 16, 32, 2, 1]),
    "three parts": (1, 1, 48, 48, 4, 4, 3, 1, [16, 64, 16, 2, 1]),
    "odd parts": (2, 1, 20, 17, 4, 3, 3, 1, [16, 32, 64, 2, 1]),
    "two strides": (2, 1, 16, 16, 6, 5, 3, 2, [16, 16, 16, 2, 2]),
    "wide filters": (1, 1, 4, 6, 6, 6, 5, 2, TINY),
    "no margin": (2, 1, 16, 16, 3, 3, 1, 2, TINY),
    "long strides": (1, 2, 5, 4, 7, 4, 3, 3, TINY),
    "one place": (2, 3, 16, 16, 1, 1, 3, 2, TINY),
}


def numbers(*shape):
    return torch.randn(shape, device=DEVICE)


def tensors(tasks, examples, channels, filters, height, width, size, stride, *_):
    """x, weight and g, with channels last in memory."""
    g = numbers(tasks, examples, -(-height // stride), -(-width // stride), filters)
    x = numbers(tasks, examples, height, width, channels)
    return channels_first(x), numbers(tasks, filters, size, size, channels), channels_first(g)


def assert_close(found, expected, precision="ieee"):
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    error = (found.double() - expected).norm() / expected.norm().clamp(min=1e-9)
    assert error < TOLERANCES[precision]


def assert_right(x, weight, g, stride, precision="ieee", tile=None):
    height, width, size = *x.shape[-2:], weight.shape[-2]
    exact = x.double(), weight.double(), g.double()
    expected = products.convolution(exact[0], exact[1], stride)
    assert_close(kernels.convolution(x, weight, stride, precision, tile), expected, precision)
    expected = products.weight_gradient(exact[2], exact[0], size, stride)
    assert_close(kernels.weight_gradient(g, x, size, stride, precision, tile and [*tile, 2]), expected, precision)
    expected = products.input_gradient(exact[2], exact[1], height, width, stride)
    assert_close(kernels.input_gradient(g, weight, height, width, stride, precision, tile), expected, precision)


@needs_triton
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", SIZES)
def test_products_are_correct(name, precision):
    if precision != "ieee" and not CUDA and name != "even parts":
        pytest.skip("all the same to the interpreter")
    *_, stride, tile = SIZES[name]
    assert_right(*tensors(*SIZES[name]), stride, precision, tile)


@needs_triton
@pytest.mark.parametrize("precision", PRECISIONS if CUDA else ["ieee"])
@pytest.mark.parametrize(("channels", "filters"), [(1, 16), (16, 16)] + CUDA * [(1, 64), (3, 48), (64, 64), (32, 32)])
def test_the_chosen_tiles_are_correct(channels, filters, precision):
    assert_right(*tensors(2, 2, channels, filters, 4, 4, 3, 2), 2, precision)


@needs_triton
def test_filters_of_many_images_are_transposed(monkeypatch):
    monkeypatch.setattr(kernels, "ROWS_TO_TURN", 1)
    x, weight, _ = tensors(*SIZES["even parts"])
    tile = SIZES["even parts"][-1]
    assert_close(kernels.convolution(x, weight, 2, "ieee", tile), products.convolution(x.double(), weight.double(), 2))


@needs_triton
@pytest.mark.parametrize("shared", ["x", "weight", "g", "x and g", "expanded weight"])
def test_tasks_may_share_images_or_weights(shared):
    x, weight, g = tensors(2, 1, 16, 16, 4, 4, 3, 2)
    x, g = (t[:1] if name in shared.split() else t for name, t in (("x", x), ("g", g)))
    if "weight" in shared:
        weight = weight[:1].expand_as(weight) if "expanded" in shared else weight[:1]
    assert_right(x, weight, g, 2, tile=TINY)


@needs_triton
@pytest.mark.parametrize("layout", ["views", "channels first", "channels first, shared"])
def test_any_strides_are_supported(layout):
    x, weight, g = tensors(2, 2, 16, 16, 4, 4, 3, 2)
    if layout == "views":
        x = torch.cat([x, x], 1)[:, ::2]
        x = channels_first(channels_last(x).repeat(1, 1, 2, 1, 2)[:, :, 1:5, :, 3:19])
        weight = weight.repeat(1, 2, 1, 2, 3)[:, ::2, :, 1:4, :16]
        g = channels_first(channels_last(g).repeat(2, 1, 1, 1, 2)[::2, ..., :16])
    else:
        x, g = x.contiguous(), g.contiguous()
        weight = channels_last(channels_first(weight).contiguous())
        if "shared" in layout:
            x, weight = (t[:1].expand_as(t) for t in (x, weight))
    assert_right(x, weight, g, 2, tile=TINY)


@needs_triton
@pytest.mark.parametrize("splits", [1, 3, 100])
def test_sums_may_be_split(splits):
    x, _, g = tensors(1, 3, 16, 16, 5, 5, 3, 1)
    found = [kernels.weight_gradient(g, x, 3, 1, tile=[*TINY, splits]) for _ in range(2)]
    assert_close(found[0], products.weight_gradient(g.double(), x.double(), 3, 1))
    assert torch.equal(*found)


@needs_triton
def test_no_images_give_no_gradient():
    x, weight, g = tensors(2, 0, 16, 16, 4, 4, 3, 2)
    assert kernels.convolution(x, weight, 2).shape == g.shape
    assert kernels.input_gradient(g, weight, 4, 4, 2).shape == x.shape
    assert torch.equal(kernels.weight_gradient(g, x, 3, 2), torch.zeros_like(weight))


@needs_triton
@pytest.mark.parametrize("name", ["task_convolution", "task_weight_gradient", "task_input_gradient"])
def test_the_custom_operators_are_registered_correctly(name):
    x, weight, g = tensors(2, 1, 16, 16, 4, 4, 3, 2)
    x, g = channels_last(x), channels_last(g)
    args = {
        "task_convolution": (x, weight, 2, "ieee", TINY),
        "task_weight_gradient": (g, x, 3, 2, "ieee", [*TINY, 2]),
        "task_input_gradient": (g, weight, 4, 4, 2, "ieee", TINY),
    }[name]
    torch.library.opcheck(getattr(torch.ops.fewstep, name).default, args, test_utils=("test_schema", "test_faketensor"))


def test_each_is_traced_as_one_operation():
    def all_three(x, weight, g):
        y = kernels.convolution(x, weight, 2)
        return y, kernels.weight_gradient(g, x, 3, 2), kernels.input_gradient(g, weight, 4, 4, 2)

    x, weight, g = tensors(2, 1, 16, 16, 4, 4, 3, 2)
    traced = make_fx(all_three, tracing_mode="fake")(x, weight, g)
    names = [str(node.target) for node in traced.graph.nodes if "fewstep" in str(node.target)]
    assert names == [f"fewstep.task_{name}.default" for name in ("convolution", "weight_gradient", "input_gradient")]
    outputs = [node.meta["val"] for node in traced.graph.output_node().all_input_nodes]
    assert [output.shape for output in outputs] == [g.shape, weight.shape, x.shape]
    assert channels_last(outputs[0]).is_contiguous()
    assert channels_last(outputs[2]).is_contiguous()


def test_unsupported_tensors_are_refused():
    x, weight, g = tensors(2, 1, 16, 16, 4, 4, 3, 2)
    with pytest.raises(ValueError, match="precision must be one of ieee, tf32"):
        kernels.convolution(x, weight, 2, "half")
    with pytest.raises(TypeError, match="needs float32 tensors"):
        kernels.weight_gradient(g.double(), x.double(), 3, 2)
    with pytest.raises(ValueError, match="same number of tasks; got 2 and 3"):
        kernels.input_gradient(g, torch.cat([weight, weight[:1]]), 4, 4, 2)


@pytest.mark.parametrize("precision", triton_tiles.PRECISIONS)
@pytest.mark.parametrize(("tasks", "examples", "side"), [(32, 5, 28), (32, 5, 4), (16, 20, 7), (4, 5, 84), (4, 75, 10)])
@pytest.mark.parametrize(("channels", "filters"), [(1, 64), (3, 32), (32, 32), (48, 48), (64, 64)])
def test_tiles_fit(tasks, examples, side, channels, filters, precision):
    rows = examples * side**2
    images = triton_tiles.tile_of_images(tasks, rows, filters, channels, 9 * channels, precision)
    gradient = triton_tiles.tile_of_images(tasks, rows, channels, filters, 9 * filters, precision, True)
    weights = triton_tiles.tile_of_weights(tasks, filters, 9 * channels, rows, precision)
    for tile in (images, gradient, weights):
        assert {tile.rows, tile.columns, tile.depth} <= {16, 32, 64, 128}
        assert tile.rows * tile.columns <= 128 * 32 * tile.warps  # the number of sums that a thread can hold
    assert images.splits == gradient.splits == 1
    assert 1 <= weights.splits <= rows
    assert channels < 16 or channels % images.depth == 0


def test_importing_needs_no_triton():
    code = "import sys, fewstep, fewstep.models.second_order.triton_convolution; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
