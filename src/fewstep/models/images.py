"""The images that a convolutional network takes."""

from __future__ import annotations

from torch import Tensor


def expect_images(images: Tensor, in_channels: int, image_size: int, network: str) -> Tensor:
    """The images, laid out with the channels last if there are several, as CPUs and tensor cores like it best.

    Args:
        images: ``[images, in_channels, image_size, image_size]``.
        in_channels: what the network was made for.
        image_size: what the network was made for.
        network: its name, for the message.

    Raises:
        ValueError: the images have another shape.

    >>> import torch
    >>> expect_images(torch.rand(2, 3, 8, 8), in_channels=3, image_size=8, network="Conv4").stride()
    (192, 1, 24, 3)
    """
    expected = (in_channels, image_size, image_size)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected:
        raise ValueError(
            f"{network} expects images [images, {', '.join(map(str, expected))}]; got {list(images.shape)}."
        )
    return images if in_channels == 1 else images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
