"""Data sets: labelled images, decoded once and kept in a cache."""

from fewstep.datasets.arrays import from_arrays
from fewstep.datasets.cifar import cifar_fs, fc100
from fewstep.datasets.folder import from_folder
from fewstep.datasets.glyphs import glyphs
from fewstep.datasets.indexable import from_dataset
from fewstep.datasets.labelled_images import LabelledImages
from fewstep.datasets.mini_imagenet import mini_imagenet
from fewstep.datasets.omniglot import omniglot
from fewstep.datasets.root import data_root

__all__ = [
    "LabelledImages",
    "cifar_fs",
    "data_root",
    "fc100",
    "from_arrays",
    "from_dataset",
    "from_folder",
    "glyphs",
    "mini_imagenet",
    "omniglot",
]
