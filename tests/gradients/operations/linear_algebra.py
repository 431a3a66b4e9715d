"""torch.linalg and related functions."""

import torch
from gradients.operations.case import Case, case, positive_definite, spread
from torch import Tensor

M = (3, 4)
_sq = (3, 3)


def _svd(x: Tensor) -> Tensor:
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    return torch.cat([(u * s.square()).matmul(u.mT).flatten(), (v.mT * s).matmul(v).flatten()])


def _eigh(x: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(x + x.mT)
    return (vectors * values.exp()) @ vectors.mT


def _eig(x: Tensor) -> Tensor:
    values, vectors = torch.linalg.eig(x)
    return torch.view_as_real((vectors * values**3) @ torch.linalg.inv(vectors))


def _lu(x: Tensor) -> Tensor:
    _, lower, upper = torch.linalg.lu(x)
    return lower + upper


def _lu_factor(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.lu_solve(*torch.linalg.lu_factor(x), y)


SPD = positive_definite(3)
CASES: list[Case] = [
    case("torch.linalg.inv", torch.linalg.inv, SPD),
    case("torch.linalg.pinv", torch.linalg.pinv, (4, 3)),
    case("torch.linalg.pinv", lambda x: torch.linalg.pinv(x + x.mT, hermitian=True), SPD, variant="hermitian"),
    case("torch.linalg.det", torch.linalg.det, _sq),
    case("torch.linalg.slogdet", lambda x: torch.linalg.slogdet(x)[1], _sq),
    case("torch.logdet", torch.logdet, SPD),
    case("torch.linalg.solve", torch.linalg.solve, SPD, (3, 2)),
    case("torch.linalg.solve_ex", lambda x, y: torch.linalg.solve_ex(x, y)[0], SPD, (3, 2)),
    case("torch.linalg.solve_triangular", lambda x, y: torch.linalg.solve_triangular(x, y, upper=False), SPD, (3, 2)),
    case(
        "torch.linalg.solve_triangular",
        lambda x, y: torch.linalg.solve_triangular(x, y, upper=True),
        SPD,
        (3, 2),
        variant="upper",
    ),
    case("torch.linalg.cholesky", lambda x: torch.linalg.cholesky(x + x.mT), SPD),
    case("torch.cholesky_solve", lambda x, y: torch.cholesky_solve(y, x.tril()), SPD, (3, 2)),
    case("torch.cholesky_inverse", lambda x: torch.cholesky_inverse(x.tril()), SPD),
    case("torch.linalg.eigh", _eigh, _sq),
    case("torch.linalg.eigvalsh", lambda x: torch.linalg.eigvalsh(x + x.mT), SPD),
    case("torch.linalg.eig", _eig, _sq),
    case("torch.linalg.eigvals", lambda x: torch.linalg.eigvals(x).abs(), SPD),
    case("torch.linalg.svd", _svd, (4, 3)),
    case("torch.linalg.svdvals", torch.linalg.svdvals, (4, 3)),
    case("torch.linalg.qr", lambda x: torch.cat(torch.linalg.qr(x)), (4, 3)),
    case("torch.linalg.lu", _lu, SPD),
    case("torch.linalg.lu_factor", _lu_factor, SPD, (3, 2)),
    case("torch.linalg.lstsq", lambda x, y: torch.linalg.lstsq(x, y).solution, (4, 3), (4, 2)),
    case("torch.linalg.householder_product", torch.linalg.householder_product, (4, 2), (2,)),
    case("torch.ormqr", lambda x, t, y: torch.ormqr(x, t, y), (4, 2), (2,), (4, 2)),
    case("torch.linalg.matrix_exp", torch.linalg.matrix_exp, _sq),
    case("torch.linalg.matrix_power", lambda x: torch.linalg.matrix_power(x, 3), _sq),
    case("torch.linalg.matrix_power", lambda x: torch.linalg.matrix_power(x, -2), SPD, variant="negative"),
    case("torch.linalg.matrix_norm", torch.linalg.matrix_norm, _sq),
    *(
        case("torch.linalg.matrix_norm", lambda x, p=p: torch.linalg.matrix_norm(x, p), spread(3, 3), variant=str(p))
        for p in ("nuc", 2, 1, float("inf"), -2)
    ),
    case("torch.linalg.vector_norm", torch.linalg.vector_norm, (4,)),
    case("torch.linalg.cond", torch.linalg.cond, SPD),
    case("torch.linalg.vecdot", torch.linalg.vecdot, M, M),
    case("torch.linalg.tensorinv", lambda x: torch.linalg.tensorinv(x, 1), (4, 2, 2)),
    case("torch.linalg.tensorsolve", torch.linalg.tensorsolve, (2, 2, 4), (2, 2)),
    case("torch.lobpcg", lambda x: torch.lobpcg(x, k=1, niter=50)[0], positive_definite(6)),
]
