"""ResNet-12, a deeper network for few-shot classification (Oreshkin et al. 2018; Lee et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fewstep.arguments import check_whole, check_widths
from fewstep.models.images import Blocks, check_images, check_norm, normed
from fewstep.models.normalization import SupportNorm
from fewstep.models.second_order import convolve, max_pool


class NormedConvolution(nn.Module):
    """A convolution that keeps the resolution, and a normalisation.

    The convolution has a bias only without normalisation. Weights are initialised from He's normal distribution, scaled
    by the number of outputs (``mode="fan_out"``).

    Args:
        in_channels: channels of the input.
        out_channels: the number of filters.
        size: height and width of the filters, odd.
        norm: normalises ``out_channels`` channels.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int, norm: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, size, size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if isinstance(norm, nn.Identity) else None
        self.norm = norm
        nn.init.kaiming_normal_(self.weight, mode="fan_out")

    def forward(self, x: Float[Tensor, "images channels height width"]) -> Float[Tensor, "images filters height width"]:
        """Map ``[images, in_channels, height, width]`` to ``[images, out_channels, height, width]``."""
        x = convolve(x, self.weight)
        return normed(self.norm, x if self.bias is None else x + self.bias.view(1, -1, 1, 1))


class ResidualBlock(nn.Module):
    """A residual block: three normalised 3×3 convolutions, a normalised 1×1 shortcut, leaky ReLU, 2×2 max-pooling.

    The slope of the leaky ReLU is 0.1. The last one is applied after pooling; it is increasing, so the result is the
    same.

    Args:
        in_channels: channels of the input.
        out_channels: the number of filters of every convolution.
        norm: a function from the number of channels to their normalisation.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first = NormedConvolution(in_channels, out_channels, 3, norm(out_channels))
        self.second = NormedConvolution(out_channels, out_channels, 3, norm(out_channels))
        self.third = NormedConvolution(out_channels, out_channels, 3, norm(out_channels))
        self.shortcut = NormedConvolution(in_channels, out_channels, 1, norm(out_channels))

    def forward(
        self, x: Float[Tensor, "images channels height width"]
    ) -> Float[Tensor, "images filters height//2 width//2"]:
        """Map ``[images, in_channels, height, width]`` to ``[images, out_channels, ⌊height/2⌋, ⌊width/2⌋]``."""
        deep = functional.leaky_relu(self.first(x), 0.1)
        deep = functional.leaky_relu(self.second(deep), 0.1)
        return functional.leaky_relu(max_pool(self.third(deep) + self.shortcut(x)), 0.1)


class ResNet12(nn.Module):
    """Four residual blocks, the mean over positions, and a linear head (Oreshkin et al. 2018; Lee et al. 2019).

    ``body`` holds the blocks and ``head`` the linear layer, so that ``adapts="head.*"`` is ANIL.

    Initialisation and widths are those of MetaOptNet (Lee et al. 2019), which UNICORN-MAML (Ye and Chao 2022) uses too;
    TADAM (Oreshkin et al. 2018) has 64-128-256-512. There is no DropBlock and no dropout, which regularise their
    training on all classes. The last maps are averaged, as in UNICORN-MAML; MetaOptNet flattens them. The blocks end in
    a leaky ReLU; in UNICORN-MAML's code they end in a ReLU during adaptation, and in a leaky ReLU during pretraining.

    Args:
        in_channels: channels of the images.
        ways: the number of classes of a task, which is the number of outputs.
        widths: the number of filters of each block.
        image_size: height and width of the images, in pixels.
        norm: a function from the number of channels to their normalisation. The default uses the statistics of the
            support set, so that an adapted network classifies one image as well as many;
            ``fewstep.models.norm_layer("batch")`` is the transductive normalisation of the MAML paper.

    Raises:
        ValueError: ``image_size`` is too small; or, when it is called, the images are not
            ``[images, in_channels, image_size, image_size]``.

    Examples:
        >>> network = ResNet12(in_channels=3, ways=5, widths=(4, 8, 16, 32), image_size=32)
        >>> network(torch.rand(10, 3, 32, 32)).shape
        torch.Size([10, 5])
    """

    def __init__(
        self,
        in_channels: int,
        ways: int,
        widths: tuple[int, int, int, int] = (64, 160, 320, 640),
        image_size: int = 84,
        norm: Callable[[int], nn.Module] = SupportNorm,
    ) -> None:
        super().__init__()
        check_whole("ResNet12", in_channels=in_channels, ways=ways, image_size=image_size)
        check_widths("ResNet12", empty=False, widths=widths)
        check_norm("ResNet12", norm)
        if len(widths) != 4:
            raise ValueError(f"ResNet12: widths must be the numbers of filters of the four blocks; got {widths}.")
        if image_size < 16:
            raise ValueError(
                f"ResNet12 halves the resolution four times: images of {image_size} are too small; 16 is enough."
            )
        self.in_channels, self.image_size, self.features = in_channels, image_size, widths[-1]
        inputs = [in_channels, *widths[:-1]]
        self.body = Blocks(*(ResidualBlock(i, o, norm) for i, o in zip(inputs, widths, strict=True)))
        self.head = nn.Linear(self.features, ways)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Float[Tensor, "images ways"]:
        """Map images ``[images, in_channels, image_size, image_size]`` to logits ``[images, ways]``."""
        return self.head(self.embed(images))

    def embed(self, images: Tensor) -> Float[Tensor, "images features"]:
        """Compute the features before the head, ``[images, features]``.

        Args:
            images: ``[images, in_channels, image_size, image_size]``.
        """
        check_images(images, self.in_channels, self.image_size, "ResNet12")
        return self.body(images).mean((2, 3))

    def encoder(self) -> nn.Sequential:
        """The network without its head, from images to features; it shares the parameters."""
        return nn.Sequential(self.body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
