"""Replaced operations in a learner: checkpoints, threads, forward mode, errors."""

from __future__ import annotations

import copy
import pickle
import re
import threading

import pytest
import torch
from gradients.checks import assert_same, meta_gradient
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fewstep as fs
from fewstep.adaptation.operations import explained, twice_differentiable
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")

ADJOINTS = [fs.Unrolled(), fs.Recomputed(), fs.Recomputed("forward"), fs.Implicit(), fs.FirstOrder()]


class Checkpointed(nn.Module):
    def __init__(self, layer: nn.Module, checkpoints: bool) -> None:
        super().__init__()
        self.layer, self.checkpoints = layer, checkpoints

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layer, x, use_reentrant=False) if self.checkpoints else self.layer(x)


def sequences(count: int = 2) -> Task:
    def batch() -> Batch:
        return Batch(torch.randn(count, 4, 3, 4), torch.randn(count, 4, 3, 4))

    return Task(batch(), batch())


def networks() -> dict[str, nn.Module]:
    return {
        "mlp": nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 4)),
        "attention": nn.TransformerEncoderLayer(4, 2, 3, 0.0, batch_first=True),
    }


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=str)
@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_checkpoints_recompute_with_the_adapted_parameters(kind: str, adjoint: fs.Adjoint) -> None:
    layer, tasks = networks()[kind], sequences()
    plain, checkpointed = (
        fs.maml(Checkpointed(layer, checkpoints), fs.mse, 0.1, 2, adjoint=adjoint, vectorize=False)
        for checkpoints in (False, True)
    )
    assert_same(meta_gradient(checkpointed, tasks), meta_gradient(plain, tasks), atol=1e-12)


def test_hooks_on_saved_tensors_work_in_a_loop() -> None:
    class Offloaded(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
                return self.layer(x)

    layer, tasks = networks()["mlp"], sequences()
    for adjoint in ADJOINTS:
        plain, offloaded = (
            fs.maml(model, fs.mse, 0.1, 2, adjoint=adjoint, vectorize=False)
            for model in (Checkpointed(layer, False), Offloaded(layer))
        )
        assert_same(meta_gradient(offloaded, tasks), meta_gradient(plain, tasks), atol=1e-12)


class WithoutForwardMode(nn.Module):
    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return torch.special.zeta(torch.tensor(2.5), self.linear(x).exp() + 1)


@pytest.mark.parametrize("vectorize", [True, False])
def test_recomputed_in_forward_mode_falls_back_once(vectorize: bool) -> None:
    model, tasks = WithoutForwardMode(), sequences(1)
    expected = meta_gradient(fs.maml(model, fs.mse, 0.1, 3, vectorize=vectorize), tasks)
    learner = fs.maml(model, fs.mse, 0.1, 3, adjoint=fs.Recomputed("forward"), vectorize=vectorize)
    counts = []
    for _ in range(3):
        before = WithoutForwardMode.calls
        assert_same(meta_gradient(learner, tasks), expected, atol=1e-12)
        counts.append(WithoutForwardMode.calls - before)
    assert counts[0] > counts[1] == counts[2]


def test_recomputed_is_copied_and_compared_by_its_mode() -> None:
    adjoint = fs.Recomputed("forward")
    for twin in (copy.deepcopy(adjoint), pickle.loads(pickle.dumps(adjoint)), fs.Recomputed("forward")):
        assert twin == adjoint
        assert hash(twin) == hash(adjoint)
        assert repr(twin) == "Recomputed(mode='forward')"


def test_replacements_do_not_affect_other_threads() -> None:
    seen = []

    def look() -> None:
        seen.append((torch._C._len_torch_function_stack(), torch.backends.mha.get_fastpath_enabled()))
        seen.append((torch.backends.mkldnn.enabled, torch.backends.cuda.flash_sdp_enabled()))

    look()
    with twice_differentiable(), twice_differentiable():
        assert torch._C._len_torch_function_stack() == 1
        other = threading.Thread(target=look)
        other.start()
        other.join()
    assert seen[:2] == seen[2:]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
def test_step_by_step_recurrent_networks_equal_pytorchs(kind: type[nn.Module], options: dict[str, int]) -> None:
    """In float32, where oneDNN has an LSTM; under vmap all networks are computed step by step."""
    network = kind(3, 4, batch_first=True, **options).float()
    x = torch.randn(2, 5, 6, 3, dtype=torch.float32)
    with torch.no_grad():
        expected = torch.stack([network(part)[0] for part in x])
        with twice_differentiable():
            apart = torch.stack([network(part)[0] for part in x])
            together = torch.vmap(lambda part: network(part)[0])(x)
            packed = nn.utils.rnn.pack_padded_sequence(x[0], [6, 6, 4, 2, 1], batch_first=True)
            ours = network(packed)
        theirs = network(packed)
    for came in (apart, together):
        torch.testing.assert_close(came, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[0].data, theirs[0].data, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-6)


def test_attention_with_masks_equals_pytorchs() -> None:
    """Including rows in which every place is masked."""
    attention, x = nn.MultiheadAttention(4, 2, batch_first=True), torch.randn(2, 3, 4)
    padding = torch.tensor([[False, True, True], [True, True, True]])
    for options in (
        {},
        {"key_padding_mask": padding},
        {"is_causal": True, "attn_mask": torch.ones(3, 3).triu(1).bool()},
    ):
        expected = attention(x, x, x, need_weights=False, **options)[0]
        with twice_differentiable():
            came = attention(x, x, x, need_weights=False, **options)[0]
        torch.testing.assert_close(came, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("the derivative for '_ctc_loss_backward' is not implemented.", "torch.nn.functional.ctc_loss"),
        ("derivative for aten::multilabel_margin_loss_backward is not implemented", "multilabel_soft_margin_loss"),
        ("derivative for aten::_scaled_dot_product_flash_attention_for_cpu_backward is not implemented", "scaled_dot"),
        ("trying to differentiate twice a function that was marked with @once_differentiable", "autograd.Function"),
        ("torch.compile with aot_autograd does not currently support double backward", "without torch.compile"),
        ("derivative for aten::linalg_ldl_factor_ex is not implemented", r"torch\.linalg\.ldl_factor"),
    ],
)
def test_errors_name_the_operation_and_the_fix(message: str, names: str) -> None:
    error = explained(RuntimeError(message))
    assert isinstance(error, NotImplementedError)
    assert re.search(rf"{names}.*fewstep\.FirstOrder", str(error))


def test_other_errors_are_not_translated() -> None:
    assert explained(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


def test_a_missing_forward_mode_suggests_reverse_mode() -> None:
    error = explained(NotImplementedError("Trying to use forward AD with grid_sampler_2d that does not support it"))
    assert "grid_sample has no forward-mode" in str(error)
    assert "Recomputed()" in str(error)


def test_first_order_supports_a_loss_without_second_derivatives() -> None:
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        target = torch.tensor([[1, -1, 0, 0]]).expand(len(batch.x), 4)
        return nn.functional.multilabel_margin_loss(model(batch.x).mean(1), target)

    first, second = (
        fs.maml(nn.Linear(4, 4), loss, 0.1, adjoint=a, vectorize=False) for a in (fs.FirstOrder(), fs.Unrolled())
    )
    meta_gradient(first, sequences())
    with pytest.raises(NotImplementedError, match="multilabel_margin_loss has no second derivative"):
        meta_gradient(second, sequences())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_scripted_modules_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.layer is a .*ScriptModule.*without torch\.jit\.script"):
        fs.maml(Checkpointed(torch.jit.script(networks()["mlp"]), False), fs.mse, 0.1)
