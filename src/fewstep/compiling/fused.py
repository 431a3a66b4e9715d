"""Fusion on a GPU: a function is traced, and its elementwise operations, reductions and views are fused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from torch import Tensor

from fewstep.compiling.inductor import compiled


def fused(function: Callable[..., list[Tensor]], example: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """Compile ``function`` to fewer kernels, for arguments like ``example``; returns it unchanged if that fails.

    Convolutions and matrix products remain separate kernels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's advice on other settings
            return compiled(function, example)
    except Exception as error:  # whatever the tracer or compiler raises, the original function still works
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        warnings.warn(
            f"compile=True records the meta-step without fusing its kernels: {type(error).__name__}: {reason} "
            'Use compile="record" to record without this warning.',
            stacklevel=2,
        )
        return function
