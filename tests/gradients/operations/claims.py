"""What is claimed of each operation's second derivative; what is not named here is exact as PyTorch has it.

``docs/reference/operations.md`` is written from this: ``python -m gradients.operations.claims`` with ``tests`` on the path.
"""

from __future__ import annotations

from pathlib import Path

from gradients.operations import elementwise, layers, linear_algebra, losses, networks, tensors
from gradients.operations.case import Case

CASES: list[Case] = [
    *elementwise.CASES,
    *tensors.CASES,
    *linear_algebra.CASES,
    *layers.CASES,
    *networks.CASES,
    *losses.CASES,
]

REPLACED = {
    "nn.functional.scaled_dot_product_attention": "no second derivative in PyTorch's fused kernels",
    "nn.MultiheadAttention": "the same",
    "nn.TransformerEncoderLayer": "the same",
    "nn.TransformerDecoderLayer": "the same",
    "nn.Transformer": "the same",
    "nn.utils.parametrizations.weight_norm": "wrong second derivative in PyTorch",
    "nn.utils.weight_norm": "the same",
    "torch._weight_norm": "the same",
    "nn.LayerNorm": "wrong in PyTorch under vmap when tasks have different scales",
    "nn.BatchNorm1d": "the same",
    "nn.BatchNorm2d": "the same",
    "nn.BatchNorm3d": "the same",
    "nn.InstanceNorm1d": "the same",
    "nn.InstanceNorm2d": "the same",
    "torch.native_layer_norm": "the same",
    "torch.batch_norm": "the same",
    "torch.native_batch_norm": "the same",
    "torch.instance_norm": "the same",
    "torch.select_scatter": "wrong in PyTorch under vmap",
    "torch.cholesky_inverse": "wrong in PyTorch in forward mode",
    "nn.LSTM": "no vmap in PyTorch; oneDNN's has no forward mode, cuDNN's no second derivative",
    "nn.GRU": "no vmap in PyTorch; cuDNN's has no second derivative",
    "nn.RNN": "the same",
    "nn.LSTMCell": "no vmap in PyTorch",
    "nn.EmbeddingBag": "no second derivative in PyTorch; bags of one size are replaced, others keep PyTorch's error",
    "nn.Embedding-padding": "under vmap PyTorch gives the padding a gradient",
    "nn.functional.mse_loss-constant target": "no forward mode in PyTorch when the target is a constant",
    "torch.cdist": "no second derivative in PyTorch",
    "nn.functional.pdist": "no second derivative in PyTorch",
    "nn.functional.hardsigmoid": "no second derivative in PyTorch",
    "nn.functional.multi_margin_loss": "no second derivative in PyTorch",
    "nn.functional.huber_loss": "no forward mode in PyTorch",
    "nn.functional.soft_margin_loss": "no forward mode in PyTorch",
    "nn.functional.gaussian_nll_loss": "no vmap in PyTorch",
    "nn.functional.one_hot": "no vmap in PyTorch; replaced where num_classes is given",
}
"""Name → why; of these PyTorch's own is wrong or missing in at least one way, and the replacement is exact."""

AS_PYTORCH_HAS_IT = {
    "nn.utils.parametrizations.weight_norm-dim=1",
    "nn.BatchNorm2d-eval",
    "nn.MultiheadAttention",
    "nn.functional.scaled_dot_product_attention-bias",
    "nn.functional.scaled_dot_product_attention-dropout",
    "nn.LSTM-packed",
    "nn.GRU-packed",
    "nn.RNN-packed",
}
"""Cases of replaced operations in which PyTorch's own derivatives are the same."""

FIRST_ORDER_ONLY = {
    "nn.functional.ctc_loss",
    "nn.functional.multilabel_margin_loss",
    "nn.CrossMapLRN2d",
}
REFUSED = {
    "nn.Embedding-max norm": "it writes into its parameters",
    "torch.as_strided_scatter": "PyTorch's gradient is wrong",
}
NOT_UNDER_VMAP = {
    "nn.functional.rrelu",
    "torch.scatter_reduce-prod",
    "torch.index_reduce-prod",
    "torch.masked_select",
    "torch.fft.hfft",
    "torch.lobpcg",
    "nn.LSTM-packed",
    "nn.GRU-packed",
    "nn.RNN-packed",
    "nn.AdaptiveLogSoftmaxWithLoss",
    "nn.Embedding-by frequency",
}
NO_FORWARD_MODE = {
    "torch.special.zeta",
    "torch.igamma",
    "torch.igammac",
    "torch.scatter_reduce-prod",
    "torch.index_reduce",
    "torch.masked_scatter",
    "torch.ormqr",
    "torch.lobpcg",
    "nn.functional.conv_tbc",
    "nn.functional.grid_sample",
    "nn.LSTM-packed",
    "nn.GRU-packed",
    "nn.RNN-packed",
}


def claimed(case: Case, names: set[str] | dict[str, str]) -> bool:
    """Whether a case, or its operation in all variants, is among them."""
    return case.name in names or str(case) in names


def page() -> str:
    """``docs/reference/operations.md``."""
    rows = [f"| {_shown(name)} | {_why(name)} |" for name in REPLACED]
    return f"""# Second derivatives of PyTorch's operations

Meta-gradients need second derivatives of the model and the loss. PyTorch has some of them wrong and lacks others. While
a task's loss is computed, fewstep replaces what it can, in that thread only; the numbers of the loss stay the same.
`tests/gradients/test_operations.py` compares {len(CASES)} cases of {len({case.name for case in CASES})} operations with
finite differences, in a loop over tasks, under vmap and in forward mode. This page is written from the same table.

## Exact

Every operation of the test that is not named below, among them all convolutions, poolings, activations and paddings,
`interpolate`, `nn.Linear`, `nn.Bilinear`, `nn.Embedding`, `nn.GroupNorm`, `nn.RMSNorm`, `einsum`, sorting and indexing,
`torch.fft`, `torch.linalg` and complex numbers, with every reduction of the losses.

## Replaced, and exact

| operation | reason |
|---|---|
{chr(10).join(rows)}

## With a restriction

| restriction | operations | what to do |
|---|---|---|
| no second derivative: an error | {_listed(FIRST_ORDER_ONLY)} | another operation, or `fewstep.FirstOrder()` |
| not under vmap: tasks are looped over, and a warning says so | {_listed(NOT_UNDER_VMAP)} | nothing |
| no forward mode: `Recomputed(mode="forward")` takes its backward pass | {_listed(NO_FORWARD_MODE)} | nothing |
| refused with an error | {_listed(REFUSED)} | another operation |
| refused with an error | `torch.jit.script` modules with parameters | pass the module as it was before scripting |

`nn.CrossMapLRN2d` also has an approximate first derivative in PyTorch; `nn.LocalResponseNorm` computes the same.
The Euclidean norm has no second derivative at 0, and PyTorch gives NaN there; `torch.cdist` and `pdist` give 0.
"""


def _why(name: str) -> str:
    reason, names = REPLACED[name], list(REPLACED)
    while reason == "the same":
        name = names[names.index(name) - 1]
        reason = REPLACED[name]
    return reason


def _listed(names: set[str] | dict[str, str]) -> str:
    return ", ".join(_shown(name) for name in sorted(names))


def _shown(name: str) -> str:
    operation, _, variant = name.partition("-")
    return f"`{operation}`" + (f" ({variant})" if variant else "")


PAGE = Path(__file__).parents[3] / "docs" / "reference" / "operations.md"

if __name__ == "__main__":
    PAGE.write_text(page())
