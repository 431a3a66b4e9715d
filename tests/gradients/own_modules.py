"""Modules as users write them, ``[examples, 4]`` to ``[examples, 2]``; smooth, for accurate finite differences."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint


class Recurrent(nn.Module):
    """Treats the four inputs as a sequence."""

    def __init__(self, kind: type[nn.Module], **options: bool) -> None:
        super().__init__()
        self.cell = kind(1, 3, batch_first=True, **options)
        self.head = nn.Linear(6 if options.get("bidirectional") else 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x[..., None])[0][:, -1])


class LowRank(nn.Module):
    """LoRA: a frozen layer plus a product of two learned factors."""

    def __init__(self, layer: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(0.5 * torch.randn(rank, layer.in_features))
        self.up = nn.Parameter(0.5 * torch.randn(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.down.T @ self.up.T


class Transformer(nn.Module):
    """A block, optionally checkpointed, and optionally with LoRA on a feed-forward layer."""

    def __init__(self, checkpoints: bool = False, low_rank: bool = False) -> None:
        super().__init__()
        self.embed, self.head, self.checkpoints = nn.Linear(1, 4), nn.Linear(4, 2), checkpoints
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(4, 2, 4, 0.0, activation="gelu", batch_first=True)])
        if low_rank:
            for block in self.blocks:
                block.linear1 = LowRank(block.linear1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x[..., None])
        for block in self.blocks:
            h = checkpoint(block, h, use_reentrant=False) if self.checkpoints else block(h)
        return self.head(h.mean(1))


class Fourier(nn.Module):
    """A layer of complex weights in the frequency domain (FNO)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.complex128))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(torch.fft.irfft(self.weight * torch.fft.rfft(x), n=4)))


class Magnitude(nn.Module):
    """A complex layer; the next one gets real and imaginary parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3, dtype=torch.complex128)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x.to(torch.complex128)))
        return self.head(torch.view_as_real(h).flatten(1))


class Repeating(nn.Module):
    """A list that holds one layer three times."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(4, 4)
        self.layers, self.head = nn.ModuleList([layer, layer, layer]), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(x)


class UnderTwoNames(nn.Module):
    """Body and head, which a Sequential holds too."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 2)
        self.net = nn.Sequential(self.body, nn.Tanh(), self.head)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class OverSelf(nn.Module):
    """Holds functions that refer to the module."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)
        self.ways = {"deep": lambda x: self.b(torch.tanh(self.a(x)))}

    def forward(self, x: Tensor) -> Tensor:
        return self.ways["deep"](x)


class Checkpointed(nn.Module):
    """A checkpointed body."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.b, torch.tanh(self.a(x)), use_reentrant=False)


class Halving(nn.Module):
    """A custom parametrization with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, weight: Tensor) -> Tensor:
        return self.scale * (weight + weight.sin())


class DeepEquilibrium(nn.Module):
    """Fixed-point iterations with shared weights."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.head = nn.Linear(3, 3), nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.zeros(len(x), 3, dtype=x.dtype)
        for _ in range(5):
            z = torch.tanh(0.3 * self.inner(z) + self.outer(x))
        return self.head(z)


class HyperNetwork(nn.Module):
    """A layer that outputs the weights of another one, which is called with functional_call."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(2))
        self.generator, self.target = nn.Linear(2, 8), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.target.weight + self.generator(self.embedding).view(2, 4)
        return torch.func.functional_call(self.target, {"weight": weight}, (torch.tanh(x),))


class Graph(nn.Module):
    """Two rounds of message passing over the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]]))
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b):
            h = layer(x)
            x = torch.tanh(h + torch.zeros_like(h).index_add(0, self.edges[1], h[self.edges[0]]))
        return x


class Keeping(nn.Module):
    """Stores a tensor with a graph in each forward pass, and passes it to its head as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.features = torch.tanh(self.a(x))
        return self.b(self.features)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def hooked() -> nn.Module:
    """A hook that uses another module's weight, and one that changes an input."""
    net = mlp()
    net[1].register_forward_hook(lambda module, args, output: output * net[2].weight[0])
    net[0].register_forward_pre_hook(lambda module, args: (args[0].sin(),))
    return net


def spectral() -> nn.Module:
    return nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 2)).eval()


def own_parametrization() -> nn.Module:
    net = mlp()
    parametrize.register_parametrization(net[0], "weight", Halving())
    return net


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    net[2].weight = net[0].weight
    return net


MODULES = {
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU, bidirectional": lambda: Recurrent(nn.GRU, bidirectional=True),
    "transformer": Transformer,
    "transformer, checkpointed": lambda: Transformer(checkpoints=True),
    "transformer, checkpointed, LoRA": lambda: Transformer(checkpoints=True, low_rank=True),
    "Fourier layer": Fourier,
    "complex layer": Magnitude,
    "orthogonal": lambda: nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 2)),
    "weight_norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 2)),
    "spectral_norm": spectral,
    "own parametrization": own_parametrization,
    "list that repeats a layer": Repeating,
    "module under two names": UnderTwoNames,
    "tied weights": tied,
    "hooks": hooked,
    "functions over self": OverSelf,
    "checkpointed body": Checkpointed,
    "fixed point": DeepEquilibrium,
    "hypernetwork": HyperNetwork,
    "graph": Graph,
    "keeps its features": Keeping,
    "norms": lambda: nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(2, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, 2)),
}
"""Functions that make a module, by name."""

LOOPS = ("transformer, checkpointed", "transformer, checkpointed, LoRA", "checkpointed body")
"""Modules that do not run under vmap."""
