"""Networks; plain modules that know nothing of meta-learning."""

from fewstep.models.conv4 import Conv4, ConvBlock, paper_norm
from fewstep.models.function import Function
from fewstep.models.mlp import MLP
from fewstep.models.normalization import BatchNorm

__all__ = ["MLP", "BatchNorm", "Conv4", "ConvBlock", "Function", "paper_norm"]
