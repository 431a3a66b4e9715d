"""Layers: convolutions, pooling, norms, attention, recurrence, parametrizations."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from gradients.operations.case import Case, between, case, layer, spread, whole

torch.manual_seed(0)  # for the buffers of the modules below, some of which are random

CASES: list[Case] = [
    layer("nn.Linear", nn.Linear(3, 2), (4, 3)),
    layer("nn.Bilinear", nn.Bilinear(3, 2, 2), (4, 3), (4, 2)),
    layer("nn.Embedding", nn.Embedding(5, 3), whole(5, 4)),
    layer("nn.Embedding", nn.Embedding(5, 3, padding_idx=1), whole(5, 4), variant="padding"),
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


def _attention(**options: object):
    return lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, **options)


def _self_attention(**options: object):
    def call(module: nn.MultiheadAttention, x: Tensor) -> Tensor:
        return module(x, x, x, **options)[0]

    return call


MASK = torch.tensor([[True, False, True], [True, True, False], [True, True, True]])
Q = (2, 2, 3, 4)
ATTENTION: list[Case] = [
    case("nn.functional.scaled_dot_product_attention", _attention(), Q, Q, Q),
    case(
        "nn.functional.scaled_dot_product_attention", _attention(is_causal=True, scale=0.3), Q, Q, Q, variant="causal"
    ),
    case("nn.functional.scaled_dot_product_attention", _attention(attn_mask=MASK), Q, Q, Q, variant="mask"),
    case(
        "nn.functional.scaled_dot_product_attention",
        lambda q, k, v, m: functional.scaled_dot_product_attention(q, k, v, attn_mask=m),
        Q,
        Q,
        Q,
        (3, 3),
        variant="bias",
    ),
    case(
        "nn.functional.scaled_dot_product_attention",
        _attention(enable_gqa=True),
        (2, 4, 3, 4),
        Q,
        Q,
        variant="grouped",
    ),
    case("nn.functional.scaled_dot_product_attention", _attention(dropout_p=0.4), Q, Q, Q, variant="dropout"),
    layer("nn.MultiheadAttention", nn.MultiheadAttention(4, 2, batch_first=True), (2, 3, 4), call=_self_attention()),
    layer(
        "nn.MultiheadAttention",
        nn.MultiheadAttention(4, 2, batch_first=True),
        (2, 3, 4),
        call=_self_attention(need_weights=False),
        variant="no weights",
    ),
    layer(
        "nn.MultiheadAttention",
        nn.MultiheadAttention(4, 2),
        (3, 2, 4),
        call=_self_attention(need_weights=False, attn_mask=~MASK, is_causal=False),
        variant="mask",
    ),
    layer("nn.TransformerEncoderLayer", nn.TransformerEncoderLayer(4, 2, 3, 0.0, batch_first=True), (2, 3, 4)),
    layer(
        "nn.TransformerEncoderLayer",
        nn.TransformerEncoderLayer(4, 2, 3, 0.0, "gelu", batch_first=True, norm_first=True).eval(),
        (2, 3, 4),
        variant="eval",
    ),
    layer("nn.TransformerDecoderLayer", nn.TransformerDecoderLayer(4, 2, 3, 0.0), (3, 1, 4), (2, 1, 4)),
    layer("nn.Transformer", nn.Transformer(4, 2, 1, 1, 3, 0.0, batch_first=True), (1, 3, 4), (1, 2, 4)),
]


def _first(module: nn.Module, *inputs: Tensor) -> Tensor:
    return module(*inputs)[0]


def _all(module: nn.Module, *inputs: Tensor) -> Tensor:
    outputs, state = module(*inputs)
    state = state if isinstance(state, tuple) else (state,)
    return torch.cat([outputs.flatten(), *(part.flatten() for part in state)])


def _packed(module: nn.Module, x: Tensor) -> Tensor:
    packed = nn.utils.rnn.pack_padded_sequence(x, [3, 1], batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(module(packed)[0], batch_first=True)[0]


def _cell(module: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
    return torch.cat(module(x, (h, c)))


RECURRENT: list[Case] = [
    *(layer(f"nn.{kind.__name__}", kind(2, 3), (3, 2, 2), call=_all) for kind in (nn.LSTM, nn.GRU, nn.RNN)),
    layer("nn.RNN", nn.RNN(2, 3, nonlinearity="relu"), (3, 2, 2), call=_all, variant="relu"),
    *(
        layer(
            f"nn.{kind.__name__}",
            kind(2, 2, num_layers=2, bidirectional=True, batch_first=True),
            (2, 3, 2),
            call=_all,
            variant="two layers, both directions",
        )
        for kind in (nn.LSTM, nn.GRU, nn.RNN)
    ),
    *(
        layer(f"nn.{kind.__name__}", kind(2, 3, batch_first=True), (2, 3, 2), call=_packed, variant="packed")
        for kind in (nn.LSTM, nn.GRU, nn.RNN)
    ),
    layer("nn.LSTM", nn.LSTM(2, 3, proj_size=2), (3, 2, 2), call=_all, variant="projection"),
    layer("nn.LSTM", nn.LSTM(2, 3, bias=False), (3, 2), call=_all, variant="no bias, no batch"),
    layer("nn.LSTM", nn.LSTM(2, 3, num_layers=2, dropout=0.4), (3, 2, 2), call=_all, variant="dropout"),
    layer("nn.LSTMCell", nn.LSTMCell(2, 3), (2, 2), (2, 3), (2, 3), call=_cell),
    layer("nn.GRUCell", nn.GRUCell(2, 3), (2, 2), (2, 3)),
    layer("nn.RNNCell", nn.RNNCell(2, 3), (2, 2), (2, 3)),
]


def _old_weight_norm(module: nn.Module, **options: int) -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(module, **options)


PARAMETRIZED: list[Case] = [
    layer("nn.utils.parametrizations.weight_norm", parametrizations.weight_norm(nn.Linear(3, 2)), (4, 3)),
    layer(
        "nn.utils.parametrizations.weight_norm",
        parametrizations.weight_norm(nn.Conv2d(2, 3, 2), dim=1),
        (1, 2, 3, 3),
        variant="dim=1",
    ),
    layer(
        "nn.utils.parametrizations.weight_norm",
        parametrizations.weight_norm(nn.Conv2d(2, 3, 2), dim=-1),
        (1, 2, 3, 3),
        variant="last dim",
    ),
    layer(
        "nn.utils.parametrizations.weight_norm",
        parametrizations.weight_norm(nn.Conv2d(2, 3, 2), dim=None),
        (1, 2, 3, 3),
        variant="one norm",
    ),
    layer("nn.utils.weight_norm", _old_weight_norm(nn.Linear(3, 2)), (4, 3)),
    case("torch._weight_norm", lambda v, g: torch._weight_norm(v, g, 0), (3, 4), (3, 1)),
    layer("nn.utils.parametrizations.spectral_norm", parametrizations.spectral_norm(nn.Linear(3, 2)).eval(), (4, 3)),
    *(
        layer(
            "nn.utils.parametrizations.orthogonal",
            parametrizations.orthogonal(nn.Linear(3, 3), orthogonal_map=how),
            (4, 3),
            variant=how,
        )
        for how in ("matrix_exp", "cayley", "householder")
    ),
]
