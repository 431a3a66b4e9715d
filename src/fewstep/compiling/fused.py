"""On a GPU: a function of tensors traced, and its elementwise operations, reductions and views fused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from torch import Tensor

from fewstep.compiling.inductor import compiled


def fused(function: Callable[..., list[Tensor]], example: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """``function`` with fewer kernels, for tensors like those of ``example``, or itself where that is not possible.

    Convolutions and products of matrices stay the kernels that they are.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a compiler, on how it might have been asked otherwise
            return compiled(function, example)
    except Exception as error:  # whatever a tracer and a compiler raise, the kernels themselves are there
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        warnings.warn(
            f"compile=True records the meta-step without fusing its kernels: {type(error).__name__}: {reason} "
            'compile="record" does so without asking.',
            stacklevel=2,
        )
        return function
