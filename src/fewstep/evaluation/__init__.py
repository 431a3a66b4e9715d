"""Evaluation: mean and confidence interval over tasks, and figures."""

from fewstep.evaluation.evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
