"""Networks; plain modules that know nothing of meta-learning."""

from fewstep.models.context_conv4 import ContextConv4
from fewstep.models.conv4 import Conv4, ConvBlock
from fewstep.models.function import Function
from fewstep.models.mlp import MLP
from fewstep.models.normalization import BatchNorm, PerStepNorm, RunningNorm, SupportNorm, norm_layer

__all__ = [
    "MLP",
    "BatchNorm",
    "ContextConv4",
    "Conv4",
    "ConvBlock",
    "Function",
    "PerStepNorm",
    "RunningNorm",
    "SupportNorm",
    "norm_layer",
]
