"""Baselines that the papers compare with."""

from fewstep.baselines.class_batches import ClassBatches, ClassifiedImages
from fewstep.baselines.episodic import AdaptedClassifier, EpisodicLearner
from fewstep.baselines.fine_tuned import CosineHead, FineTuned
from fewstep.baselines.full_context import FullContext
from fewstep.baselines.lru_memory import LRUMemory
from fewstep.baselines.mann import MANN
from fewstep.baselines.matching import MatchingNetwork
from fewstep.baselines.multi_task import MultiTask, l2_penalty, mean_penalty, no_penalty
from fewstep.baselines.nearest_neighbour import NearestNeighbour
from fewstep.baselines.pretrained import pretrained
from fewstep.baselines.pretrained_classifier import PretrainedClassifier
from fewstep.baselines.prototypical import PrototypicalNetwork
from fewstep.baselines.relation import RelationModule, RelationNetwork, relation_error
from fewstep.baselines.siamese import SiameseNetwork, pair_cross_entropy

__all__ = [
    "MANN",
    "AdaptedClassifier",
    "ClassBatches",
    "ClassifiedImages",
    "CosineHead",
    "EpisodicLearner",
    "FineTuned",
    "FullContext",
    "LRUMemory",
    "MatchingNetwork",
    "MultiTask",
    "NearestNeighbour",
    "PretrainedClassifier",
    "PrototypicalNetwork",
    "RelationModule",
    "RelationNetwork",
    "SiameseNetwork",
    "l2_penalty",
    "mean_penalty",
    "no_penalty",
    "pair_cross_entropy",
    "pretrained",
    "relation_error",
]
