"""Training: the outer loop, its run folder and checkpoints."""

from fewstep.training.checkpoint import load_checkpoint, save_checkpoint
from fewstep.training.fit import Trainable, TrainingDiverged, TrainingInterrupted, fit
from fewstep.training.run_folder import RunFolder

__all__ = [
    "RunFolder",
    "Trainable",
    "TrainingDiverged",
    "TrainingInterrupted",
    "fit",
    "load_checkpoint",
    "save_checkpoint",
]
