"""Similarities of two representations of the same examples: CKA and CCA."""

from __future__ import annotations

import torch
from torch import Tensor

from fewstep.arguments import check_number


def cka(a: Tensor, b: Tensor) -> Tensor:
    """Compute linear centred kernel alignment, between 0 and 1 (Kornblith et al. 2019, section 3).

    CKA = ‖BᵀA‖² / (‖AᵀA‖·‖BᵀB‖) with Frobenius norms and centred columns of A and B. It is invariant to orthogonal
    transformations, isotropic scaling and translation of the features, but not to other linear maps.

    Args:
        a: activations, ``[examples, features]``.
        b: activations of the same examples, ``[examples, other features]``.

    Returns:
        A scalar; NaN if ``a`` or ``b`` is the same for all examples.

    Raises:
        ValueError: ``a`` and ``b`` are not matrices of the same examples.

    Examples:
        >>> import torch
        >>> a = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> round(cka(a, 2 * a.flip(1) + 1).item(), 6)
        1.0
    """
    a, b = _centred(a, b, "cka")
    if len(a) < max(a.shape[1], b.shape[1]):  # the same traces from smaller matrices
        of_a, of_b = a @ a.T, b @ b.T
        return (of_a * of_b).sum() / (of_a.norm() * of_b.norm())
    return (b.T @ a).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm())


def cca(a: Tensor, b: Tensor, variance: float = 1.0) -> Tensor:
    """Compute the mean canonical correlation, in [0, 1] (Raghu et al. 2017; Kornblith et al. 2019, table 1, ρ̄_CCA).

    The canonical correlations are the singular values of QₐᵀQ_b, where Q are orthonormal bases of the centred columns;
    their number is the smaller of the two ranks. CCA is invariant to invertible linear maps and to translation.

    With no more examples than features, CCA is 1 for any features. Use more examples then, or ``variance=0.99``
    (SVCCA).

    Args:
        a: activations, ``[examples, features]``.
        b: activations of the same examples, ``[examples, other features]``.
        variance: the fraction of variance to keep: of each representation, only the fewest principal directions that
            explain it are used. 0.99 is SVCCA; 1 keeps all directions that are nonzero at the activations' precision.

    Returns:
        A scalar; NaN if ``a`` or ``b`` is the same for all examples.

    Raises:
        ValueError: ``a`` and ``b`` are not matrices of the same examples, or ``variance`` is not in (0, 1].

    Examples:
        >>> import torch
        >>> a = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
        >>> round(cca(a, a @ torch.tensor([[1.0, 5.0], [0.0, 0.1]])).item(), 6)
        1.0
    """
    check_number("cca", 0, 1, above=True, variance=variance)
    given = a, b
    a, b = _centred(a, b, "cca")
    precision = max(torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0 for value in given)
    correlations = torch.linalg.svdvals(_basis(a, precision, variance).T @ _basis(b, precision, variance))
    return correlations.clamp(max=1.0).mean()


def _basis(centred: Tensor, precision: float, variance: float) -> Tensor:
    directions, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    present = sizes > sizes[:1] * precision * max(centred.shape)
    shares = sizes.square().cumsum(0) / sizes.square().sum()
    before = torch.cat([shares.new_zeros(1), shares[:-1]])
    return directions[:, present & ((before < variance) | (variance == 1))]


def _centred(a: Tensor, b: Tensor, name: str) -> tuple[Tensor, Tensor]:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        raise TypeError(f"{name} expects two tensors; got {type(a).__name__} and {type(b).__name__}.")
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < 2:
        raise ValueError(
            f"{name} expects two matrices [examples, features] of the same two or more examples; "
            f"got {list(a.shape)} and {list(b.shape)}."
        )
    a, b = a.double(), b.double()
    return a - a.mean(0), b - b.mean(0)
