"""Elementwise functions."""

import torch
from gradients.operations.case import Case, between, case, spread
from torch import special
from torch.nn import functional

N = (4,)
POSITIVE = between(0.3, 2.0, 4)
INSIDE = between(-0.8, 0.8, 4)
UNIT = between(0.1, 0.9, 4)
ABOVE_ONE = between(1.2, 3.0, 4)

ANY = [
    "exp",
    "exp2",
    "expm1",
    "sin",
    "cos",
    "sinh",
    "cosh",
    "tanh",
    "atan",
    "asinh",
    "sigmoid",
    "erf",
    "erfc",
    "sinc",
    "square",
    "neg",
    "deg2rad",
    "rad2deg",
]
OF_POSITIVE = ["log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "lgamma", "digamma", "mvlgamma_"]

CASES: list[Case] = [
    *(case(f"torch.{name}", getattr(torch, name), N) for name in ANY),
    *(case(f"torch.{name}", getattr(torch, name), POSITIVE) for name in OF_POSITIVE if name != "mvlgamma_"),
    *(case(f"torch.{name}", getattr(torch, name), INSIDE) for name in ("asin", "acos", "atanh", "erfinv", "tan")),
    case("torch.acosh", torch.acosh, ABOVE_ONE),
    case("torch.logit", torch.logit, UNIT),
    case("torch.logit", lambda x: torch.logit(x, 1e-3), UNIT, variant="eps"),
    case("torch.abs", torch.abs, spread(4)),
    case("torch.sign", lambda x: x * torch.sign(x), spread(4)),
    case("torch.clamp", lambda x: x.clamp(-0.5, 0.5), spread(4)),
    case("torch.clamp", lambda x, y: x.clamp(min=y), spread(4), N, variant="tensor"),
    case("torch.pow", lambda x: x**3, N, variant="scalar"),
    case("torch.pow", lambda x, y: x**y, POSITIVE, N, variant="tensor"),
    case("torch.pow", lambda x: 2.0**x, N, variant="base"),
    case("torch.float_power", torch.float_power, POSITIVE, N),
    case("torch.mul", torch.mul, N, N),
    case("torch.div", torch.div, N, POSITIVE),
    case("torch.fmod", lambda x, y: torch.fmod(x, y), N, ABOVE_ONE),
    case("torch.remainder", lambda x, y: torch.remainder(x, y), N, ABOVE_ONE),
    case("torch.maximum", torch.maximum, N, N),
    case("torch.minimum", torch.minimum, N, N),
    case("torch.fmax", torch.fmax, N, N),
    case("torch.where", lambda x, y: torch.where(x > 0, x * y, y**2), spread(4), N),
    case("torch.lerp", lambda x, y: torch.lerp(x, y, 0.3), N, N, variant="scalar"),
    case("torch.lerp", torch.lerp, N, N, N, variant="tensor"),
    case("torch.addcmul", torch.addcmul, N, N, N),
    case("torch.addcdiv", torch.addcdiv, N, N, POSITIVE),
    case("torch.atan2", torch.atan2, N, POSITIVE),
    case("torch.hypot", torch.hypot, N, POSITIVE),
    case("torch.logaddexp", torch.logaddexp, N, N),
    case("torch.logaddexp2", torch.logaddexp2, N, N),
    case("torch.xlogy", torch.xlogy, N, POSITIVE),
    case("torch.copysign", torch.copysign, spread(4), spread(4)),
    case("torch.frac", torch.frac, N),
    case("torch.nan_to_num", torch.nan_to_num, N),
    case("torch.i0", torch.i0, N),
    case("torch.mvlgamma", lambda x: torch.mvlgamma(x, 2), ABOVE_ONE),
    case("torch.polygamma", lambda x: torch.polygamma(1, x), POSITIVE),
    case("torch.ldexp", torch.ldexp, N, N),
    *(
        case(f"torch.special.{name}", getattr(special, name), N)
        for name in ["i0e", "i1", "i1e", "ndtr", "log_ndtr", "softmax_"]
        if name != "softmax_"
    ),
    case("torch.special.erfcx", special.erfcx, POSITIVE),
    case("torch.special.ndtri", special.ndtri, UNIT),
    case("torch.special.entr", special.entr, POSITIVE),
    case("torch.special.xlog1py", special.xlog1py, N, POSITIVE),
    case("torch.special.zeta", lambda y: special.zeta(torch.tensor(2.5), y), ABOVE_ONE),
    case("torch.igamma", lambda x: torch.igamma(torch.tensor(1.5), x), POSITIVE),
    case("torch.igammac", lambda x: torch.igammac(torch.tensor(1.5), x), POSITIVE),
    # Activations
    *(
        case(f"nn.functional.{name}", getattr(functional, name), spread(4))
        for name in [
            "relu",
            "relu6",
            "elu",
            "selu",
            "celu",
            "leaky_relu",
            "gelu",
            "silu",
            "mish",
            "softplus",
            "logsigmoid",
            "softsign",
            "tanhshrink",
            "hardtanh",
            "hardshrink",
            "softshrink",
            "hardsigmoid",
            "hardswish",
        ]
    ),
    case("nn.functional.gelu", lambda x: functional.gelu(x, approximate="tanh"), N, variant="tanh"),
    case("nn.functional.softplus", lambda x: functional.softplus(x, 2.0, 0.5), spread(4), variant="threshold"),
    case("nn.functional.threshold", lambda x: functional.threshold(x, 0.1, -2.0), spread(4)),
    case("nn.functional.prelu", functional.prelu, spread(2, 3), (3,)),
    case("nn.functional.prelu", functional.prelu, spread(2, 3), (1,), variant="one"),
    case("nn.functional.rrelu", functional.rrelu, spread(4)),
    case("nn.functional.glu", functional.glu, (2, 4)),
    case("nn.functional.softmax", lambda x: functional.softmax(x, -1), (2, 4)),
    case("nn.functional.softmin", lambda x: functional.softmin(x, -1), (2, 4)),
    case("nn.functional.log_softmax", lambda x: functional.log_softmax(x, -1), (2, 4)),
    case("nn.functional.dropout", lambda x: functional.dropout(x**2, 0.5), (6,)),
    case("nn.functional.dropout2d", lambda x: functional.dropout2d(x**2, 0.5), (2, 6, 1, 1)),
    case("nn.functional.alpha_dropout", lambda x: functional.alpha_dropout(x**2, 0.5, training=True), (6,)),
    case(
        "nn.functional.feature_alpha_dropout",
        lambda x: functional.feature_alpha_dropout(x**2, 0.5, training=True),
        (2, 6, 1, 1),
    ),
    case("nn.functional.gumbel_softmax", lambda x: functional.gumbel_softmax(x, 0.7), (2, 4)),
    case("nn.functional.rrelu", lambda x: functional.rrelu(x, training=True), spread(4), variant="training"),
]
