"""Losses with all their reductions."""

import torch
from gradients.operations.case import Case, between, case, layer, spread, whole
from torch import nn
from torch.nn import functional

REDUCTIONS = ("mean", "sum", "none")
B = (4, 3)


def signs(*shape: int):
    """Targets of 1 and −1, which are not differentiated."""
    return lambda: torch.randint(2, shape) * 2 - 1


def reduced(name: str, *inputs, **claims: str) -> list[Case]:
    function = getattr(functional, name)
    return [
        case(f"nn.functional.{name}", lambda *t, r=r: function(*t, reduction=r), *inputs, variant=r, **claims)
        for r in REDUCTIONS
    ]


CASES: list[Case] = [
    *reduced("mse_loss", B, B),
    case("nn.functional.mse_loss", lambda x: functional.mse_loss(x, torch.ones(4, 3)), B, variant="constant target"),
    *reduced("l1_loss", B, B),
    *reduced("smooth_l1_loss", B, B),
    *reduced("huber_loss", B, B),
    *reduced("soft_margin_loss", B, signs(4, 3)),
    *reduced("cross_entropy", B, whole(3, 4)),
    *reduced("nll_loss", B, whole(3, 4)),
    *reduced("kl_div", B, between(0.1, 0.9, 4, 3)),
    *reduced("binary_cross_entropy", between(0.1, 0.9, 4), between(0.1, 0.9, 4)),
    *reduced("binary_cross_entropy_with_logits", B, between(0.1, 0.9, 4, 3)),
    *reduced("poisson_nll_loss", B, between(0.1, 2, 4, 3)),
    *reduced("gaussian_nll_loss", B, B, between(0.2, 2, 4, 3)),
    *reduced("hinge_embedding_loss", spread(4, 3), signs(4, 3)),
    *reduced("multilabel_soft_margin_loss", B, between(0, 1, 4, 3)),
    *reduced("multi_margin_loss", spread(4, 3), whole(3, 4)),
    *reduced("multilabel_margin_loss", B, lambda: torch.tensor([[1, 2, -1]] * 4)),
    *reduced("margin_ranking_loss", (4,), (4,), signs(4)),
    *reduced("cosine_embedding_loss", B, B, signs(4)),
    *reduced("triplet_margin_loss", B, B, B),
    *reduced("triplet_margin_with_distance_loss", B, B, B),
    case("nn.functional.smooth_l1_loss", lambda x, y: functional.smooth_l1_loss(x, y, beta=0.3), B, B, variant="beta"),
    case("nn.functional.huber_loss", lambda x, y: functional.huber_loss(x, y, delta=0.3), B, B, variant="delta"),
    case("nn.functional.mse_loss", lambda x, y, w: functional.mse_loss(x, y, weight=w), B, B, B, variant="weight"),
    case(
        "nn.functional.cross_entropy",
        lambda x, y: functional.cross_entropy(x, y, torch.tensor([0.2, 0.5, 0.9], dtype=x.dtype)),
        B,
        whole(3, 4),
        variant="weight",
    ),
    case(
        "nn.functional.cross_entropy",
        lambda x, y: functional.cross_entropy(x, y, label_smoothing=0.2),
        B,
        whole(3, 4),
        variant="smoothing",
    ),
    case("nn.functional.cross_entropy", functional.cross_entropy, B, between(0, 1, 4, 3), variant="probabilities"),
    case("nn.functional.cross_entropy", functional.cross_entropy, (2, 3, 4), whole(3, 2, 4), variant="positions"),
    case("nn.functional.cross_entropy", functional.cross_entropy, (2, 3, 4, 2), whole(3, 2, 4, 2), variant="images"),
    case(
        "nn.functional.cross_entropy",
        lambda x, y: functional.cross_entropy(x, y, ignore_index=1),
        B,
        whole(3, 4),
        variant="ignore",
    ),
    case(
        "nn.functional.binary_cross_entropy",
        lambda x, y: functional.binary_cross_entropy(x, y, torch.tensor([0.2, 0.5, 0.9, 1.1], dtype=x.dtype)),
        between(0.1, 0.9, 4),
        between(0.1, 0.9, 4),
        variant="weight",
    ),
    case(
        "nn.functional.binary_cross_entropy_with_logits",
        lambda x, y: functional.binary_cross_entropy_with_logits(
            x, y, pos_weight=torch.tensor([0.2, 0.5, 0.9], dtype=x.dtype)
        ),
        B,
        between(0.1, 0.9, 4, 3),
        variant="pos_weight",
    ),
    case(
        "nn.functional.kl_div",
        lambda x, y: functional.kl_div(x, y, reduction="batchmean", log_target=True),
        B,
        B,
        variant="log",
    ),
    case(
        "nn.functional.gaussian_nll_loss",
        lambda x, y, v: functional.gaussian_nll_loss(x, y, v, full=True),
        B,
        B,
        between(0.2, 2, 4, 1),
        variant="full",
    ),
    case(
        "nn.functional.multi_margin_loss",
        lambda x, y: functional.multi_margin_loss(x, y, p=2),
        spread(4, 3),
        whole(3, 4),
        variant="p=2",
    ),
    case(
        "nn.functional.triplet_margin_loss",
        lambda x, y, z: functional.triplet_margin_loss(x, y, z, swap=True),
        B,
        B,
        B,
        variant="swap",
    ),
    *(
        case(
            "nn.functional.ctc_loss",
            lambda x, r=r: functional.ctc_loss(
                x.log_softmax(2), torch.tensor([[1, 2], [2, 1]]), (5, 5), (2, 2), reduction=r
            ),
            (5, 2, 3),
            variant=r,
        )
        for r in REDUCTIONS
    ),
    layer(
        "nn.AdaptiveLogSoftmaxWithLoss",
        nn.AdaptiveLogSoftmaxWithLoss(4, 6, [2, 4], div_value=2.0),
        (5, 4),
        whole(6, 5),
        call=lambda m, x, y: m(x, y).loss,
    ),
]
