"""A context in which operations with wrong or missing second derivatives are replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fewstep.adaptation.operations.embeddings import EMBEDDINGS
from fewstep.adaptation.operations.functions import FUNCTIONS
from fewstep.adaptation.operations.norms import NORMS
from fewstep.adaptation.operations.recurrence import RECURRENCE
from fewstep.pytorch import in_forward_mode, is_innermost


def twice_differentiable() -> AbstractContextManager[Any]:
    """A context, of this thread only, that replaces operations whose second derivative is wrong or missing.

    Replacements have the same results. An operation without a replacement raises PyTorch's error when it is
    differentiated twice, which ``explained`` translates. ``docs/reference/operations.md`` lists all operations.
    """
    return _ALREADY if is_innermost(_REPLACING) else _REPLACING


class _Replacing(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        replacement = _REPLACED.get(func, func)
        return replacement(*args, **kwargs) if kwargs else replacement(*args)


def _scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, **options: Any) -> Tensor:
    if reduce == "prod" and in_forward_mode():
        raise NotImplementedError(
            'Trying to use forward AD with scatter_reduce("prod"), whose forward-mode derivative is wrong in PyTorch.'
        )
    return torch.scatter_reduce(input, dim, index, src, reduce, **options)


def _as_strided_scatter(*args: Any, **options: Any) -> Tensor:
    raise NotImplementedError("torch.as_strided_scatter has a wrong gradient in PyTorch. Assign to views instead.")


_REPLACED: dict[Any, Callable[..., Any]] = {
    **NORMS,
    **FUNCTIONS,
    **RECURRENCE,
    **EMBEDDINGS,
    torch.scatter_reduce: _scatter_reduce,
    Tensor.scatter_reduce: _scatter_reduce,
    torch.as_strided_scatter: _as_strided_scatter,
    Tensor.as_strided_scatter: _as_strided_scatter,
}
_REPLACING = _Replacing()  # shared, since it has no state and each thread has its own stack of modes
_ALREADY: AbstractContextManager[None] = nullcontext()
