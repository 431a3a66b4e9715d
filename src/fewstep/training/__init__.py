"""Training: the outer loop, its run folder and checkpoints."""

from fewstep.training.checkpoint import load_checkpoint, save_checkpoint
from fewstep.training.divergence import TrainingDiverged
from fewstep.training.fit import Trainable, fit
from fewstep.training.interrupt import TrainingInterrupted
from fewstep.training.load import load
from fewstep.training.run_folder import RunFolder

__all__ = [
    "RunFolder",
    "Trainable",
    "TrainingDiverged",
    "TrainingInterrupted",
    "fit",
    "load",
    "load_checkpoint",
    "save_checkpoint",
]
