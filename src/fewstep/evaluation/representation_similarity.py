"""How alike two representations of the same examples are: CKA and CCA."""

from __future__ import annotations

import torch
from torch import Tensor


def cka(a: Tensor, b: Tensor) -> Tensor:
    """Linear centred kernel alignment, between 0 and 1 (Kornblith et al. 2019, section 3).

    ‖BᵀA‖² / (‖AᵀA‖·‖BᵀB‖) in Frobenius norms, the columns of A and B centred. Invariant to orthogonal maps of the
    features, to their scale and to a shift, but not to other linear maps.

    Args:
        a: activations, ``[examples, features]``.
        b: activations of the same examples, in as many features as it likes.

    Returns:
        A scalar; NaN if a or b is the same for all examples.

    Raises:
        ValueError: a and b are no such matrices.

    Examples:
        >>> import torch
        >>> a = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
        >>> round(cka(a, 2 * a.flip(1) + 1).item(), 6)
        1.0
    """
    a, b = _centred(a, b, "cka")
    if len(a) < max(a.shape[1], b.shape[1]):  # the same traces, of the smaller matrices
        of_a, of_b = a @ a.T, b @ b.T
        return (of_a * of_b).sum() / (of_a.norm() * of_b.norm())
    return (b.T @ a).square().sum() / ((a.T @ a).norm() * (b.T @ b).norm())


def cca(a: Tensor, b: Tensor, variance: float = 1.0) -> Tensor:
    """Mean canonical correlation, between 0 and 1 (Raghu et al. 2017; Kornblith et al. 2019, table 1, ρ̄_CCA).

    The canonical correlations are the singular values of QₐᵀQ_b, where Q are orthonormal bases of the centred columns;
    the mean is over as many as the smaller of the two ranks. Invariant to every invertible linear map of the features
    and to a shift.

    With no more examples than features it is 1 whatever the features are. Singular vectors first (SVCCA), or more
    examples, help there.

    Args:
        a: activations, ``[examples, features]``.
        b: activations of the same examples, in as many features as it likes.
        variance: keeps the fewest principal directions of either that hold this share of its variance; 0.99 is SVCCA.
            1 keeps all that are not 0 to the precision of the activations.

    Returns:
        A scalar; NaN if a or b is the same for all examples.

    Raises:
        ValueError: a and b are no such matrices, or ``variance`` is no share.

    Examples:
        >>> import torch
        >>> a = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
        >>> round(cca(a, a @ torch.tensor([[1.0, 5.0], [0.0, 0.1]])).item(), 6)
        1.0
    """
    if not 0 < variance <= 1:
        raise ValueError(f"cca: variance is the share to keep, above 0 and at most 1; got {variance}.")
    precision = max(torch.finfo(value.dtype).eps for value in (a, b))
    a, b = _centred(a, b, "cca")
    correlations = torch.linalg.svdvals(_basis(a, precision, variance).T @ _basis(b, precision, variance))
    return correlations.clamp(max=1.0).mean()


def _basis(centred: Tensor, precision: float, variance: float) -> Tensor:
    directions, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    present = sizes > sizes[:1] * precision * max(centred.shape)
    shares = sizes.square().cumsum(0) / sizes.square().sum()
    before = torch.cat([shares.new_zeros(1), shares[:-1]])
    return directions[:, present & ((before < variance) | (variance == 1))]


def _centred(a: Tensor, b: Tensor, name: str) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b) or len(a) < 2:
        raise ValueError(
            f"{name} expects two matrices [examples, features] of the same two or more examples; "
            f"got {list(a.shape)} and {list(b.shape)}."
        )
    a, b = a.double(), b.double()
    return a - a.mean(0), b - b.mean(0)
