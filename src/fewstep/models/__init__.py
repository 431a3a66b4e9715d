"""Networks, as plain modules that do not depend on meta-learning, and normalisation layers."""

from fewstep.models.context_conv4 import ContextChannel, ContextConv4
from fewstep.models.conv4 import Conv4, ConvBlock
from fewstep.models.fully_connected import FullyConnected
from fewstep.models.function import Function
from fewstep.models.mlp import MLP
from fewstep.models.normalization import BatchNorm, PerStepNorm, RunningNorm, SupportNorm, norm_layer
from fewstep.models.resnet12 import ResNet12

__all__ = [
    "MLP",
    "BatchNorm",
    "ContextChannel",
    "ContextConv4",
    "Conv4",
    "ConvBlock",
    "FullyConnected",
    "Function",
    "PerStepNorm",
    "ResNet12",
    "RunningNorm",
    "SupportNorm",
    "norm_layer",
]
