"""What convolutional networks share: which images they take, and how these lie in memory."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewstep.models.normalization import BatchNorm


class Blocks(nn.Sequential):
    """Blocks of convolutions, one after the other.

    Images are laid out with the channels last, as CPUs and tensor cores like it best.
    """

    def forward(
        self, images: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images filters newheight newwidth"]:
        """``[images, channels, height, width]`` to what the last block gives."""
        if images.stride(1) != 1:
            images = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return super().forward(images)


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(x)``; PyTorch's own norms under vmap know images only with the channels first."""
    own = isinstance(norm, (BatchNorm, nn.Identity))
    return norm(x if own else x.clone(memory_format=torch.contiguous_format))


def check_images(images: Tensor, in_channels: int, image_size: int, network: str) -> None:
    """Raises if a network was made for other images.

    Args:
        images: should be ``[images, in_channels, image_size, image_size]``.
        in_channels: what the network was made for.
        image_size: what the network was made for.
        network: its name, for the message.

    Raises:
        ValueError: the images have another shape.
    """
    expected = (in_channels, image_size, image_size)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected:
        raise ValueError(
            f"{network} expects images [images, {', '.join(map(str, expected))}]; got {list(images.shape)}."
        )
