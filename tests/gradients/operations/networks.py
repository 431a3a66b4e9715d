"""Attention, recurrent networks, parametrizations."""

import torch
from gradients.operations.case import Case, case, layer
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

torch.manual_seed(1)  # for buffers, some of which are random


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

CASES = [*ATTENTION, *RECURRENT, *PARAMETRIZED]
