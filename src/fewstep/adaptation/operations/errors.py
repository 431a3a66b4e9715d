"""PyTorch's errors about missing derivatives, as errors that name the operation and the fix."""

from __future__ import annotations

import re

import torch
from torch.nn import functional

INTERNAL_NAMES = {
    "embedding_bag": "torch.nn.EmbeddingBag",
    "embedding_bag_per_sample_weights": "torch.nn.EmbeddingBag",
    "grid_sampler_2d": "torch.nn.functional.grid_sample",
    "grid_sampler_2d_cpu_fallback": "torch.nn.functional.grid_sample",
    "grid_sampler_3d": "torch.nn.functional.grid_sample",
    "special_zeta": "torch.special.zeta",
    "cudnn_rnn": "torch.nn.LSTM, GRU or RNN with cuDNN",
    "mkldnn_rnn_layer": "torch.nn.LSTM with oneDNN",
    "weight_norm_interface": "torch.nn.utils.parametrizations.weight_norm",
    "weight_norm_differentiable": "torch.nn.utils.parametrizations.weight_norm",
    "euclidean_dist": "torch.cdist",
    "pack_padded_sequence": "torch.nn.utils.rnn.pack_padded_sequence",
}
"""Public names of operations by their internal names, if they differ in more than a prefix or suffix."""

FORMULATIONS = {
    "torch.nn.EmbeddingBag": "give it bags of one size, [bags, size], without offsets or padding_idx",
    "torch.nn.functional.multilabel_margin_loss": "use torch.nn.functional.multilabel_soft_margin_loss",
    "torch.nn.functional.scaled_dot_product_attention": "write it as a softmax of products",
    "a function compiled by torch.compile": "pass the model without torch.compile, and set compile=True",
    "torch.nn.CrossMapLRN2d": "use torch.nn.LocalResponseNorm",
}
"""An equal or similar operation that can be differentiated twice, by public name."""

SECOND = "no second derivative"
FORWARD = "no forward-mode derivative"

PATTERNS = (
    (re.compile(r"derivative for '?(?:aten::)?(\w+)'? is not implemented"), SECOND),
    (re.compile(r"Trying to use forward AD with (?:aten::)?(\w+)"), FORWARD),
    (re.compile(r"Double backwards is not supported for CuDNN (RNN)s"), SECOND),
    (re.compile(r"(double backward)", re.IGNORECASE), SECOND),
    (re.compile(r"(marked with @once_differentiable)"), SECOND),
    (re.compile(r"(functions with out=\.\.\. arguments don't support automatic differentiation)"), SECOND),
    (re.compile(r"(implement the jvp function)"), FORWARD),
)
DESCRIBED = {
    "RNN": INTERNAL_NAMES["cudnn_rnn"],
    "double backward": "a function compiled by torch.compile",
    "marked with @once_differentiable": "a torch.autograd.Function whose backward is marked @once_differentiable",
    "implement the jvp function": "a torch.autograd.Function without jvp",
    "functions with out=... arguments don't support automatic differentiation": (
        "a torch.autograd.Function whose backward writes into tensors (such as torch.nn.CrossMapLRN2d)"
    ),
}
"""Descriptions where PyTorch's error names no operation."""


def explained(error: BaseException) -> NotImplementedError | None:
    """Translate an error of PyTorch about a missing derivative.

    Args:
        error: raised while a loss is differentiated.

    Returns:
        An error that names the operation, the missing derivative and the fix; ``None`` if ``error`` has another cause.

    Examples:
        >>> str(explained(NotImplementedError("the derivative for '_pdist_backward' is not implemented.")))[:56]
        'torch.nn.functional.pdist has no second derivative in Py'
    """
    for pattern, lack in PATTERNS:
        match = pattern.search(str(error))
        if match:
            name = DESCRIBED.get(match[1].lower(), DESCRIBED.get(match[1])) or public_name(match[1])
            if lack == FORWARD:
                fixes = ["use fewstep.Recomputed(), which needs none", "adjoint=fewstep.FirstOrder()"]
            else:
                fixes = ["adjoint=fewstep.FirstOrder(), which needs first derivatives only"]
            if name in FORMULATIONS:
                fixes.insert(0, FORMULATIONS[name])
            return NotImplementedError(
                f"{name} has {lack} in PyTorch, and the gradient through adaptation needs one. Use another operation "
                f"in the model or loss; {'; or '.join(fixes)}."
            )
    return None


def public_name(internal: str) -> str:
    """The name of an operation in PyTorch's documentation.

    Examples:
        >>> public_name("_cdist_backward"), public_name("multi_margin_loss_backward")
        ('torch.cdist', 'torch.nn.functional.multi_margin_loss')
    """
    name = internal.strip("_")
    while name.endswith(("_backward", "_forward", "_ex")):
        name = name.rsplit("_", 1)[0]
    if name.startswith("scaled_dot_product"):
        return "torch.nn.functional.scaled_dot_product_attention"
    if name in INTERNAL_NAMES:
        return INTERNAL_NAMES[name]
    if name.startswith("linalg_"):
        return f"torch.linalg.{name.removeprefix('linalg_')}"
    if name.endswith("_loss") or name == "pdist":
        return f"torch.nn.functional.{name}"
    if hasattr(torch, name):
        return f"torch.{name}"
    return f"torch.nn.functional.{name}" if hasattr(functional, name) else internal
