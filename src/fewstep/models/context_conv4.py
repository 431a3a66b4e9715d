"""Networks for images with context parameters, which alone are adapted."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.models.conv4 import Conv4


class ContextConv4(nn.Module):
    """Conv4 whose third block's maps are scaled and shifted by a linear function of context parameters (FiLM).

    The context is all that :func:`fewstep.cavia` adapts (Zintgraf et al. 2019, section 4 and appendix).

    Args:
        network: the convolutional network.
        filters: of its third block.
        size: number of context parameters.

    >>> ContextConv4(Conv4(in_channels=1, ways=5), filters=64)(torch.rand(10, 1, 28, 28)).shape
    torch.Size([10, 5])
    """

    def __init__(self, network: Conv4, filters: int, size: int = 100) -> None:
        super().__init__()
        self.network = network
        self.context = nn.Parameter(torch.zeros(size))
        self.film = nn.Linear(size, 2 * filters)

    def forward(self, images: Tensor) -> Float[Tensor, "images ways"]:
        """``[images, channels, height, width]`` to logits ``[images, ways]``."""
        scale, shift = self.film(self.context).view(2, 1, -1, 1, 1)
        first, second, third, fourth = self.network.body
        maps = third(second(first(images)))
        return self.network.head(self.network.features_of(fourth(maps * (1 + scale) + shift)))


class ContextChannel(nn.Module):
    """A network that sees free parameters as one more channel beside those of the images (MAML, appendix C.2).

    The paper's comparison with adapting a context vector: only ``context`` is adapted, and all is learned.

    Args:
        network: of images with one channel more than there are.
        image_size: height and width.

    >>> ContextChannel(Conv4(in_channels=2, ways=5), image_size=28)(torch.rand(10, 1, 28, 28)).shape
    torch.Size([10, 5])
    """

    def __init__(self, network: nn.Module, image_size: int) -> None:
        super().__init__()
        self.network = network
        self.context = nn.Parameter(torch.zeros(1, image_size, image_size))

    def forward(self, images: Tensor) -> Float[Tensor, "images ways"]:
        """``[images, channels, height, width]`` to logits ``[images, ways]``."""
        logits: Tensor = self.network(torch.cat([images, self.context.expand(len(images), -1, -1, -1)], 1))
        return logits
