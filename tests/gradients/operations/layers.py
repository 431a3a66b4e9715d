"""Layers: convolutions, pooling, norms, attention, recurrence, parametrizations."""

import torch
from gradients.operations.case import Case, between, case, layer, spread, whole
from torch import nn
from torch.nn import functional

torch.manual_seed(0)  # for the buffers of the modules below, some of which are random

CASES: list[Case] = [
    layer("nn.Linear", nn.Linear(3, 2), (4, 3)),
    layer("nn.Bilinear", nn.Bilinear(3, 2, 2), (4, 3), (4, 2)),
    layer("nn.Embedding", nn.Embedding(5, 3), whole(5, 4)),
    layer("nn.Embedding", nn.Embedding(5, 3, padding_idx=1), lambda: torch.tensor([0, 1, 1, 3]), variant="padding"),
    layer("nn.Embedding", nn.Embedding(5, 3, scale_grad_by_freq=True), whole(5, 8), variant="by frequency"),
    layer("nn.Embedding", nn.Embedding(5, 3, max_norm=0.5), whole(5, 8), variant="max norm"),
    *(
        layer("nn.EmbeddingBag", nn.EmbeddingBag(5, 3, mode=mode), whole(5, 2, 3), variant=mode)
        for mode in ("sum", "mean", "max")
    ),
    case(
        "nn.EmbeddingBag",
        lambda w, s, i: functional.embedding_bag(i, w, mode="sum", per_sample_weights=s),
        (5, 3),
        (2, 3),
        whole(5, 2, 3),
        variant="weights",
    ),
    case("nn.functional.one_hot", lambda x, i: functional.one_hot(i, 4) * x, (3, 4), whole(4, 3)),
    # Convolutions
    layer("nn.Conv1d", nn.Conv1d(2, 3, 3, padding=1), (2, 2, 5)),
    layer("nn.Conv2d", nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 2, 5, 5)),
    layer("nn.Conv2d", nn.Conv2d(2, 2, 3, padding="same", padding_mode="circular"), (1, 2, 4, 4), variant="circular"),
    layer("nn.Conv2d", nn.Conv2d(2, 2, 2, dilation=2, padding="same"), (1, 2, 4, 4), variant="dilation"),
    layer("nn.Conv3d", nn.Conv3d(1, 2, 2), (1, 1, 3, 3, 3)),
    layer("nn.ConvTranspose1d", nn.ConvTranspose1d(2, 3, 3, stride=2), (1, 2, 3)),
    layer("nn.ConvTranspose2d", nn.ConvTranspose2d(2, 2, 3, stride=2, output_padding=1), (1, 2, 3, 3)),
    layer("nn.ConvTranspose3d", nn.ConvTranspose3d(1, 1, 2), (1, 1, 2, 2, 2)),
    case("nn.functional.unfold", lambda x: functional.unfold(x, 2, stride=2), (1, 2, 4, 4)),
    case("nn.functional.fold", lambda x: functional.fold(x, (3, 3), 2), (1, 4, 4)),
    case("nn.functional.conv_tbc", torch.conv_tbc, (5, 2, 3), (3, 3, 2), (2,)),
    # Pooling
    layer("nn.MaxPool1d", nn.MaxPool1d(2), spread(1, 2, 6)),
    layer("nn.MaxPool2d", nn.MaxPool2d(2), spread(1, 2, 4, 4)),
    layer("nn.MaxPool2d", nn.MaxPool2d(3, stride=1, padding=1), spread(1, 2, 4, 4), variant="overlapping"),
    layer("nn.MaxPool3d", nn.MaxPool3d(2), spread(1, 2, 2, 4, 2)),
    layer("nn.AvgPool1d", nn.AvgPool1d(2), (1, 2, 6)),
    layer("nn.AvgPool2d", nn.AvgPool2d(2), (1, 2, 4, 4)),
    layer("nn.AvgPool3d", nn.AvgPool3d(2), (1, 2, 2, 4, 2)),
    layer("nn.LPPool1d", nn.LPPool1d(2, 2), (1, 2, 6)),
    layer("nn.LPPool2d", nn.LPPool2d(3, 2), between(0.2, 1, 1, 2, 4, 4)),
    layer("nn.LPPool3d", nn.LPPool3d(2, 2), (1, 1, 2, 4, 2)),
    layer("nn.AdaptiveMaxPool1d", nn.AdaptiveMaxPool1d(2), spread(1, 2, 5)),
    layer("nn.AdaptiveMaxPool2d", nn.AdaptiveMaxPool2d(2), spread(1, 2, 5, 5)),
    layer("nn.AdaptiveMaxPool3d", nn.AdaptiveMaxPool3d(2), spread(1, 1, 3, 3, 3)),
    layer("nn.AdaptiveAvgPool1d", nn.AdaptiveAvgPool1d(2), (1, 2, 5)),
    layer("nn.AdaptiveAvgPool2d", nn.AdaptiveAvgPool2d(2), (1, 2, 5, 5)),
    layer("nn.AdaptiveAvgPool2d", nn.AdaptiveAvgPool2d(1), (1, 2, 5, 5), variant="1"),
    layer("nn.AdaptiveAvgPool3d", nn.AdaptiveAvgPool3d(2), (1, 1, 3, 3, 3)),
    case(
        "nn.FractionalMaxPool2d",
        lambda x: functional.fractional_max_pool2d(
            x, 2, output_size=(2, 2), _random_samples=torch.full((1, 2, 2), 0.4)
        ),
        spread(1, 2, 5, 5),
    ),
    case(
        "nn.FractionalMaxPool3d",
        lambda x: functional.fractional_max_pool3d(
            x, 2, output_size=(2, 2, 2), _random_samples=torch.full((1, 1, 3), 0.4)
        ),
        spread(1, 1, 4, 4, 4),
    ),
    case(
        "nn.MaxUnpool2d",
        lambda x: functional.max_unpool2d(*functional.max_pool2d(x, 2, return_indices=True), 2),
        spread(1, 2, 4, 4),
    ),
    # Padding, resizing, rearranging
    *(
        case("nn.functional.pad", lambda x, how=how: functional.pad(x, (1, 2), how), (1, 2, 4), variant=how)
        for how in ("constant", "reflect", "replicate", "circular")
    ),
    *(
        case(
            "nn.functional.pad",
            lambda x, how=how: functional.pad(x, (1, 1, 1, 1), how),
            (1, 2, 3, 3),
            variant=f"{how}, 2d",
        )
        for how in ("constant", "reflect", "replicate", "circular")
    ),
    case(
        "nn.functional.pad",
        lambda x: functional.pad(x, (1, 1, 1, 1, 1, 1), "replicate"),
        (1, 1, 2, 2, 2),
        variant="replicate, 3d",
    ),
    case(
        "nn.functional.pad",
        lambda x: functional.pad(x, (1, 1, 1, 1, 1, 1), "reflect"),
        (1, 1, 2, 2, 2),
        variant="reflect, 3d",
    ),
    *(
        case(
            "nn.functional.interpolate",
            lambda x, how=how: functional.interpolate(x, scale_factor=2, mode=how),
            shape,
            variant=f"{how}, {len(shape) - 2}d",
        )
        for how, shape in (
            ("nearest", (1, 2, 3)),
            ("nearest-exact", (1, 2, 3)),
            ("linear", (1, 2, 3)),
            ("area", (1, 2, 3)),
            ("nearest", (1, 2, 2, 3)),
            ("nearest-exact", (1, 2, 2, 3)),
            ("bilinear", (1, 2, 2, 3)),
            ("bicubic", (1, 2, 2, 3)),
            ("lanczos", (1, 2, 2, 3)),
            ("nearest", (1, 1, 2, 2, 2)),
            ("trilinear", (1, 1, 2, 2, 2)),
        )
        if how != "lanczos"
    ),
    *(
        case(
            "nn.functional.interpolate",
            lambda x, how=how: functional.interpolate(x, size=(2, 2), mode=how, antialias=True),
            (1, 1, 4, 4),
            variant=f"{how}, antialias",
        )
        for how in ("bilinear", "bicubic")
    ),
    *(
        case(
            "nn.functional.grid_sample",
            lambda x, g, how=how: functional.grid_sample(x, g, how, align_corners=False),
            (1, 2, 4, 4),
            between(-0.9, 0.9, 1, 2, 2, 2),
            variant=how,
        )
        for how in ("bilinear", "nearest", "bicubic")
    ),
    case(
        "nn.functional.grid_sample",
        lambda x, g: functional.grid_sample(x, g, align_corners=False),
        (1, 1, 3, 3, 3),
        between(-0.9, 0.9, 1, 2, 2, 2, 3),
        variant="3d",
    ),
    case(
        "nn.functional.affine_grid", lambda t: functional.affine_grid(t, [1, 1, 3, 3], align_corners=False), (1, 2, 3)
    ),
    layer("nn.PixelShuffle", nn.PixelShuffle(2), (1, 4, 2, 2)),
    layer("nn.PixelUnshuffle", nn.PixelUnshuffle(2), (1, 1, 4, 4)),
    layer("nn.ChannelShuffle", nn.ChannelShuffle(2), (1, 4, 2, 2)),
    # Normalisation
    layer("nn.LayerNorm", nn.LayerNorm(3), (4, 3)),
    layer("nn.LayerNorm", nn.LayerNorm((2, 3), bias=False), (4, 2, 3), variant="no shift"),
    layer("nn.RMSNorm", nn.RMSNorm(3), (4, 3)),
    layer("nn.BatchNorm1d", nn.BatchNorm1d(3, track_running_stats=False), (4, 3)),
    layer("nn.BatchNorm2d", nn.BatchNorm2d(2, track_running_stats=False), (3, 2, 2, 2)),
    layer("nn.BatchNorm3d", nn.BatchNorm3d(2, track_running_stats=False), (3, 2, 2, 2, 1)),
    layer("nn.BatchNorm2d", nn.BatchNorm2d(2).eval(), (3, 2, 2, 2), variant="eval"),
    layer("nn.InstanceNorm1d", nn.InstanceNorm1d(2, affine=True), (3, 2, 4)),
    layer("nn.InstanceNorm2d", nn.InstanceNorm2d(2, affine=True), (3, 2, 2, 2)),
    layer("nn.GroupNorm", nn.GroupNorm(2, 4), (3, 4, 2)),
    layer("nn.LocalResponseNorm", nn.LocalResponseNorm(2), (1, 4, 3)),
    layer("nn.CrossMapLRN2d", nn.CrossMapLRN2d(2), (1, 4, 2, 2)),
    case("torch.native_layer_norm", lambda x, w, b: torch.native_layer_norm(x, [3], w, b, 1e-5)[0], (4, 3), (3,), (3,)),
    case(
        "torch.native_group_norm",
        lambda x, w, b: torch.native_group_norm(x, w, b, 3, 4, 2, 2, 1e-5)[0],
        (3, 4, 2),
        (4,),
        (4,),
    ),
    case(
        "torch.batch_norm",
        lambda x, w, b: torch.batch_norm(x, w, b, None, None, True, 0.1, 1e-5, False),
        (4, 3),
        (3,),
        (3,),
    ),
    case(
        "torch.native_batch_norm",
        lambda x, w, b: torch.native_batch_norm(x, w, b, None, None, True, 0.1, 1e-5)[0],
        (4, 3),
        (3,),
        (3,),
    ),
    case(
        "torch.instance_norm",
        lambda x, w, b: torch.instance_norm(x, w, b, None, None, True, 0.1, 1e-5, False),
        (3, 2, 4),
        (2,),
        (2,),
    ),
    case("nn.functional.normalize", lambda x: functional.normalize(x, dim=1), (3, 4)),
    case("nn.functional.cosine_similarity", functional.cosine_similarity, (3, 4), (3, 4)),
    case("nn.functional.pairwise_distance", functional.pairwise_distance, (3, 4), (3, 4)),
    *(
        case("torch.cdist", lambda x, y, p=p: torch.cdist(x, y, p), (3, 2), (4, 2), variant=f"p={p}")
        for p in (1.0, 2.0, 3.0, float("inf"))
    ),
    case("torch.cdist", torch.cdist, (30, 2), (4, 2), variant="many"),
    case("torch.cdist", torch.cdist, (2, 3, 2), (2, 4, 2), variant="batch"),
    case("nn.functional.pdist", functional.pdist, (4, 2)),
    case("nn.functional.pdist", lambda x: functional.pdist(x, 1.0), (4, 2), variant="p=1"),
]
