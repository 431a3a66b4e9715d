"""Functions that reduce, select, move and multiply the entries of a tensor; transforms; complex numbers."""

import torch
from gradients.operations.case import Case, between, case, spread, whole
from torch import Tensor

M = (3, 4)


def with_zero(*places: int):
    def draw() -> Tensor:
        x = torch.randn(4)
        x[list(places)] = 0.0
        return x

    return draw


def _written(x: Tensor, write) -> Tensor:
    """A copy that is modified in place."""
    y = x.square()
    write(y)
    return y


CASES: list[Case] = [
    case("torch.sum", lambda x: x.square().sum(1), M),
    case("torch.mean", lambda x: x.mean(0), M),
    case("torch.var", lambda x: x.var(1), M),
    case("torch.std", lambda x: x.std(1), M),
    case("torch.var_mean", lambda x: torch.cat(torch.var_mean(x, 1)), M),
    case("torch.std_mean", lambda x: torch.cat(torch.std_mean(x, 1)), M),
    case("torch.prod", lambda x: x.prod(1), M),
    case("torch.prod", torch.prod, with_zero(1), variant="one zero"),
    case("torch.prod", torch.prod, with_zero(1, 2), variant="two zeros"),
    case("torch.prod", lambda x: x.prod(0), with_zero(1, 2), variant="dim, two zeros"),
    case("torch.cumsum", lambda x: x.cumsum(1), M),
    case("torch.cumprod", lambda x: x.cumprod(1), M),
    case("torch.cumprod", lambda x: x.cumprod(0), with_zero(1), variant="zero"),
    case("torch.logcumsumexp", lambda x: x.logcumsumexp(1), M),
    case("torch.cummax", lambda x: x.cummax(1).values, spread(3, 4)),
    case("torch.cummin", lambda x: x.cummin(1).values, spread(3, 4)),
    case("torch.logsumexp", lambda x: x.logsumexp(1), M),
    case("torch.norm", lambda x: x.norm(dim=1), M),
    case("torch.norm", lambda x: x.norm(p=1, dim=1), M, variant="p=1"),
    case("torch.norm", lambda x: x.norm(p=3, dim=1), M, variant="p=3"),
    case("torch.norm", lambda x: x.norm(p=1.5, dim=1), M, variant="p=1.5"),
    case("torch.norm", lambda x: x.norm(p=float("inf"), dim=1), spread(3, 4), variant="p=inf"),
    case("torch.max", lambda x: x.max(), spread(3, 4), variant="all"),
    case("torch.max", lambda x: x.max(1).values, spread(3, 4)),
    case("torch.min", lambda x: x.min(1).values, spread(3, 4)),
    case("torch.amax", lambda x: x.amax(1), spread(3, 4)),
    case("torch.amin", lambda x: x.amin((0, 1)), spread(3, 4)),
    case("torch.aminmax", lambda x: torch.cat(torch.aminmax(x, dim=1)), spread(3, 4)),
    case("torch.median", lambda x: x.median(1).values, spread(3, 4)),
    case("torch.median", lambda x: x.median(), spread(3, 4), variant="all"),
    case("torch.nanmedian", lambda x: x.nanmedian(1).values, spread(3, 4)),
    case("torch.nansum", lambda x: x.nansum(1), M),
    case("torch.nanmean", lambda x: x.nanmean(1), M),
    case("torch.quantile", lambda x: x.quantile(0.3, dim=1), spread(3, 4)),
    case("torch.kthvalue", lambda x: x.kthvalue(2, 1).values, spread(3, 4)),
    case("torch.mode", lambda x: x.mode(1).values, spread(3, 4)),
    case("torch.topk", lambda x: x.topk(2, 1).values, spread(3, 4)),
    case("torch.sort", lambda x: x.sort(1).values, spread(3, 4)),
    case("torch.msort", torch.msort, spread(3, 4)),
    case("torch.renorm", lambda x: torch.renorm(x, 2, 0, 0.7), M),
    case("torch.trapezoid", lambda y, x: torch.trapezoid(y, x), (4,), spread(4)),
    case("torch.diff", lambda x: x.diff(dim=1), M),
    case("torch.gradient", lambda x: torch.gradient(x)[0], (5,)),
    case("torch.dist", torch.dist, (4,), (4,)),
    case("torch.cov", torch.cov, M),
    case("torch.corrcoef", torch.corrcoef, M),
    # Places
    case("torch.gather", lambda x, i: x.gather(1, i), M, whole(4, 3, 2)),
    case("torch.scatter", lambda x, s, i: x.scatter(1, i, s), M, (3, 1), whole(4, 3, 1)),
    case("torch.scatter_add", lambda x, s, i: x.scatter_add(1, i, s), M, (3, 2), whole(4, 3, 2)),
    *(
        case(
            "torch.scatter_reduce",
            lambda x, s, i, how=how: x.scatter_reduce(1, i, s, how),
            spread(3, 4),
            spread(3, 6),
            whole(4, 3, 6),
            variant=how,
        )
        for how in ("sum", "prod", "mean", "amax", "amin")
    ),
    case("torch.index_select", lambda x, i: x.index_select(1, i), M, whole(4, 3)),
    case("torch.index_add", lambda x, s, i: x.index_add(1, i, s), M, (3, 2), whole(4, 2)),
    case("torch.index_copy", lambda x, s: x.index_copy(1, torch.tensor([2, 0]), s), M, (3, 2)),
    case("torch.index_fill", lambda x: x.index_fill(1, torch.tensor([2, 0]), 0.5), M),
    case("torch.index_put", lambda x, s, i: x.index_put((i,), s, accumulate=True), M, (2, 4), whole(3, 2)),
    *(
        case(
            "torch.index_reduce",
            lambda x, s, i, how=how: x.index_reduce(1, i, s, how),
            spread(3, 4),
            spread(3, 3),
            whole(4, 3),
            variant=how,
        )
        for how in ("prod", "mean", "amax", "amin")
    ),
    case("Tensor.__getitem__", lambda x, i: x[i], M, whole(3, 5)),
    case("torch.masked_fill", lambda x: x.masked_fill(x > 0, 0.5), M),
    case("torch.masked_select", lambda x: x.masked_select(x > 0).square().sum(), M),
    case("torch.masked_scatter", lambda x, s: x.masked_scatter(torch.tensor([True, False, True, False]), s), M, (6,)),
    case("torch.take", lambda x, i: x.take(i), M, whole(12, 5)),
    case("torch.take_along_dim", lambda x, i: x.take_along_dim(i, 1), M, whole(4, 3, 2)),
    case("torch.diagonal_scatter", lambda x, s: x.diagonal_scatter(s), (3, 3), (3,)),
    case("torch.select_scatter", lambda x, s: x.select_scatter(s, 1, 2), M, (3,)),
    case("torch.slice_scatter", lambda x, s: x.slice_scatter(s, 1, 1, 3), M, (3, 2)),
    case(
        "Tensor.__setitem__",
        lambda x, s: _written(x, lambda y: y.__setitem__((slice(None), 2), s)),
        M,
        (3,),
        variant="column",
    ),
    case("Tensor.__setitem__", lambda x, s: _written(x, lambda y: y.__setitem__(1, s)), M, (4,), variant="row"),
    case(
        "Tensor.__setitem__",
        lambda x, s, i: _written(x, lambda y: y.__setitem__(i, s)),
        M,
        (2, 4),
        lambda: torch.randperm(3)[:2],
        variant="index",
    ),
    case(
        "Tensor.__setitem__",
        lambda x: _written(x, lambda y: y.__setitem__((slice(None), slice(1, 3)), 0.0)),
        M,
        variant="slice",
    ),
    case("Tensor.copy_", lambda x, s: _written(x, lambda y: y.narrow(1, 1, 2).copy_(s)), M, (3, 2)),
    case("Tensor.mul_", lambda x, s: _written(x, lambda y: y[:, 1:].mul_(s)), M, (3, 3)),
    case("Tensor.add_", lambda x, s: _written(x, lambda y: y.add_(s, alpha=0.5)), M, M),
    case(
        "Tensor.scatter_add_", lambda x, s, i: _written(x, lambda y: y.scatter_add_(1, i, s)), M, (3, 2), whole(4, 3, 2)
    ),
    case("Tensor.index_add_", lambda x, s, i: _written(x, lambda y: y.index_add_(1, i, s)), M, (3, 2), whole(4, 2)),
    case(
        "Tensor.index_put_",
        lambda x, s, i: _written(x, lambda y: y.index_put_((i,), s, accumulate=True)),
        M,
        (2, 4),
        whole(3, 2),
    ),
    case("Tensor.masked_fill_", lambda x: _written(x, lambda y: y.masked_fill_(y > 0.5, 0.5)), M),
    case("Tensor.clamp_", lambda x: _written(x, lambda y: y.clamp_(-0.5, 0.5)), M),
    case("torch.as_strided_scatter", lambda x, s: x.as_strided_scatter(s, (2, 2), (4, 1)), M, (2, 2)),
    case("torch.unfold_copy", lambda x: x.unfold(0, 2, 1).square(), M),
    # Shapes
    case("torch.roll", lambda x: x.roll(1, 1), M),
    case("torch.flip", lambda x: x.flip(1), M),
    case("torch.rot90", lambda x: x.rot90(), M),
    case("torch.tril", torch.tril, M),
    case("torch.triu", torch.triu, M),
    case("torch.diag", torch.diag, M),
    case("torch.diag_embed", torch.diag_embed, M),
    case("torch.diagonal", torch.diagonal, M),
    case("torch.cat", lambda x, y: torch.cat([x, y], 1), M, M),
    case("torch.stack", lambda x, y: torch.stack([x, y], 1), M, M),
    case("torch.split", lambda x: x.split(2, 1)[0] * x.split(2, 1)[1], M),
    case("torch.tile", lambda x: x.tile(2), M),
    case("torch.repeat_interleave", lambda x: x.repeat_interleave(2, 1), M),
    case("Tensor.repeat", lambda x: x.repeat(2, 1), M),
    case("Tensor.expand", lambda x: x.expand(2, 3, 4), M),
    case("Tensor.unfold", lambda x: x.unfold(1, 2, 1), M),
    case("torch.as_strided", lambda x: x.contiguous().as_strided((2, 2), (4, 1)), M),
    case("torch.movedim", lambda x: x.movedim(0, 1), M),
    case("torch.meshgrid", lambda x, y: torch.mul(*torch.meshgrid(x, y, indexing="ij")), (3,), (4,)),
    case("torch.combinations", torch.combinations, (4,)),
    case("torch.block_diag", torch.block_diag, M, M),
    case("torch.linalg.vander", torch.linalg.vander, (4,)),
    case("torch.constant_pad_nd", lambda x: torch.constant_pad_nd(x, (1, 1)), M),
    # Products
    case("torch.matmul", torch.matmul, (3, 4), (4, 2)),
    case("torch.matmul", torch.matmul, (2, 3, 4), (4,), variant="vector"),
    case("torch.bmm", torch.bmm, (2, 3, 4), (2, 4, 2)),
    case("torch.baddbmm", torch.baddbmm, (2, 3, 2), (2, 3, 4), (2, 4, 2)),
    case("torch.addmm", torch.addmm, (3, 2), (3, 4), (4, 2)),
    case("torch.addbmm", torch.addbmm, (3, 2), (2, 3, 4), (2, 4, 2)),
    case("torch.addmv", torch.addmv, (3,), (3, 4), (4,)),
    case("torch.addr", torch.addr, (3, 4), (3,), (4,)),
    case("torch.mv", torch.mv, M, (4,)),
    case("torch.dot", torch.dot, (4,), (4,)),
    case("torch.outer", torch.outer, (3,), (4,)),
    case("torch.inner", torch.inner, M, M),
    case("torch.kron", torch.kron, (2, 2), (3, 2)),
    case("torch.tensordot", lambda x, y: torch.tensordot(x, y, 1), M, (4, 2)),
    case("torch.einsum", lambda x, y, z: torch.einsum("ab,bc,cd->ad", x, y, z), M, (4, 2), (2, 3)),
    case("torch.cross", lambda x, y: torch.linalg.cross(x, y), (2, 3), (2, 3)),
    case("torch.trace", torch.trace, (3, 3)),
    case("torch.linalg.multi_dot", lambda x, y: torch.linalg.multi_dot([x, y, x]), (3, 4), (4, 3)),
    # Fourier transforms
    *(
        case(f"torch.fft.{name}", lambda x, f=f: torch.view_as_real(f(x).resolve_conj()), (4, 5))
        for name, f in ((n, getattr(torch.fft, n)) for n in ["fft", "ifft", "rfft", "ihfft", "fft2", "rfft2", "fftn"])
    ),
    *(
        case(f"torch.fft.{name}", lambda x, y, f=f: f(torch.complex(x, y)), (4, 5), (4, 5))
        for name, f in ((n, getattr(torch.fft, n)) for n in ["irfft", "hfft", "irfft2"])
    ),
    case("torch.fft.fftshift", torch.fft.fftshift, (5,)),
    case(
        "torch.stft",
        lambda x: torch.view_as_real(torch.stft(x, 4, window=torch.hann_window(4), return_complex=True)),
        (12,),
    ),
    case(
        "torch.istft",
        lambda x: torch.istft(torch.stft(x, 4, window=torch.ones(4), return_complex=True), 4, window=torch.ones(4)),
        (12,),
    ),
    # Complex numbers
    case("torch.complex", lambda x, y: torch.view_as_real(torch.complex(x, y) ** 2), M, M),
    case("torch.polar", lambda x, y: torch.view_as_real(torch.polar(x, y)), between(0.5, 1, 4), (4,)),
    case("torch.abs", lambda x, y: torch.complex(x, y).abs(), M, M, variant="complex"),
    case("torch.angle", lambda x, y: torch.complex(x, y).angle(), M, M),
    case("torch.exp", lambda x, y: torch.view_as_real(torch.complex(x, y).exp()), M, M, variant="complex"),
    case("torch.log", lambda x, y: torch.view_as_real(torch.complex(x, y).log()), M, M, variant="complex"),
    case(
        "torch.sqrt",
        lambda x, y: torch.view_as_real(torch.complex(x, y).sqrt()),
        M,
        between(0.5, 1, 3, 4),
        variant="complex",
    ),
    case("torch.tanh", lambda x, y: torch.view_as_real(torch.complex(x, y).tanh()), M, M, variant="complex"),
    case("torch.prod", lambda x, y: torch.view_as_real(torch.complex(x, y).prod(1)), M, M, variant="complex"),
    case(
        "torch.matmul",
        lambda x, y: torch.view_as_real(torch.complex(x, y) @ torch.complex(y, x).mT),
        M,
        M,
        variant="complex",
    ),
    case("torch.view_as_complex", lambda x: torch.view_as_complex(x).real * torch.view_as_complex(x).imag, (3, 2)),
]
