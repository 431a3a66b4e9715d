"""The claims about each operation's second derivative. PyTorch's own is exact for every operation not named here.

``docs/reference/operations.md`` is generated from it: ``PYTHONPATH=tests python -m gradients.operations.claims``.
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
    "nn.LSTM": "no vmap in PyTorch; no forward mode in oneDNN, no second derivative in cuDNN",
    "nn.GRU": "no vmap in PyTorch; no second derivative in cuDNN",
    "nn.RNN": "the same",
    "nn.LSTMCell": "no vmap in PyTorch",
    "nn.EmbeddingBag": "no second derivative in PyTorch; replaced for bags of equal size, else PyTorch's error",
    "nn.Embedding-padding": "under vmap PyTorch gives the padding a gradient",
    "nn.functional.mse_loss-constant target": "no forward mode in PyTorch when the target is a constant",
    "torch.cdist": "no second derivative in PyTorch",
    "nn.functional.pdist": "no second derivative in PyTorch",
    "nn.functional.hardsigmoid": "no second derivative in PyTorch",
    "nn.functional.multi_margin_loss": "no second derivative in PyTorch",
    "nn.functional.huber_loss": "no forward mode in PyTorch",
    "nn.functional.soft_margin_loss": "no forward mode in PyTorch",
    "nn.functional.gaussian_nll_loss": "no vmap in PyTorch",
    "nn.functional.one_hot": "no vmap in PyTorch; replaced if num_classes is given",
}
"""Name to reason. PyTorch's own derivative is wrong or missing in at least one mode, and the replacement is exact."""

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
"""Cases of replaced operations whose derivatives in PyTorch are correct."""

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
    """Whether the case, or its operation in all variants, is in ``names``."""
    return case.name in names or str(case) in names


def page() -> str:
    """``docs/reference/operations.md``."""
    operations = len({case.name for case in CASES})
    rows = [f"| {_shown(name)} | {_why(name)} |" for name in REPLACED]
    return f"""# Second derivatives of PyTorch's operations

Meta-gradients need second derivatives of the model and the loss. In PyTorch some of these are wrong and some missing.
While the loss of a task is computed, fewstep replaces the operations it can, in the current thread only. The value of
the loss does not change. `tests/gradients/test_operations.py` compares {len(CASES)} cases of {operations} operations
with finite differences, in a loop over tasks, under vmap and in forward mode. This page is generated from the same
table.

## Exact in PyTorch

Every tested operation that is not named below. This includes all convolutions, poolings, activations and paddings,
`interpolate`, `nn.Linear`, `nn.Bilinear`, `nn.Embedding`, `nn.GroupNorm`, `nn.RMSNorm`, `einsum`, sorting and indexing,
`torch.fft`, `torch.linalg`, complex numbers, and every reduction of the losses.

## Replaced by an exact version

| operation | reason |
|---|---|
{chr(10).join(rows)}

## Restricted

| restriction | operations | what to do |
|---|---|---|
| no second derivative: an error | {_listed(FIRST_ORDER_ONLY)} | another operation, or `fewstep.FirstOrder()` |
| no vmap: tasks run in a loop, with a warning | {_listed(NOT_UNDER_VMAP)} | nothing |
| no forward mode: `Recomputed(mode="forward")` uses the backward pass instead | {_listed(NO_FORWARD_MODE)} | nothing |
| refused with an error | {_listed(REFUSED)} | another operation |
| refused with an error | `torch.jit.script` modules with parameters | pass the module before scripting |

The first derivative of `nn.CrossMapLRN2d` is approximate in PyTorch as well; `nn.LocalResponseNorm` computes the same
function. The Euclidean norm has no second derivative at 0, where PyTorch returns NaN; `torch.cdist` and `pdist`
return 0.
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
