"""Evaluation: mean and confidence interval over tasks, and what adaptation changes."""

from fewstep.evaluation.array_metric import array_metric
from fewstep.evaluation.check_gradients import GradientCheck, check_gradients
from fewstep.evaluation.evaluate import Evaluation, evaluate
from fewstep.evaluation.feature_reuse import Comparison, blocks_of, freezing, layer_similarity
from fewstep.evaluation.nil import nil
from fewstep.evaluation.representation_similarity import cca, cka

__all__ = [
    "Comparison", "Evaluation", "GradientCheck", "array_metric", "blocks_of", "cca", "check_gradients", "cka",
    "evaluate", "freezing", "layer_similarity", "nil",
]  # fmt: skip
