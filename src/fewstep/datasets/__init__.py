"""Data sets: labelled images, decoded once and kept in a cache."""

from fewstep.datasets.glyphs import glyphs
from fewstep.datasets.labelled_images import LabelledImages
from fewstep.datasets.mini_imagenet import mini_imagenet
from fewstep.datasets.omniglot import omniglot
from fewstep.datasets.root import data_root

__all__ = ["LabelledImages", "data_root", "glyphs", "mini_imagenet", "omniglot"]
