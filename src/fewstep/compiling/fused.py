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
        return compiled(function, example)
    except (
        Exception
    ) as error:  # anything can come from a tracer and a compiler; the kernels themselves are always there
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        warnings.warn(
            f"compile=True records the meta-step without fusing its kernels: {type(error).__name__}: {reason} "
            'compile="record" does so without asking.',
            stacklevel=2,
        )
        return function
