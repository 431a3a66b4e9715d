"""PyTorch's private interfaces that are in use, in one place, each with a public fallback where there is one."""

from __future__ import annotations

import torch

try:
    from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters as _interpreters
except ImportError:  # pragma: no cover - another PyTorch
    _interpreters = None  # type: ignore[assignment]


def transforms() -> int:
    """How many transformations of ``torch.func``, such as ``vmap`` and ``grad``, are under way."""
    if _interpreters is not None:
        return len(_interpreters())
    return int(torch._C._functorch.maybe_current_level() is not None)  # pragma: no cover - another PyTorch
