"""What the papers compare with."""

from fewstep.baselines.multi_task import MultiTask, l2_penalty, mean_penalty, no_penalty
from fewstep.baselines.pretrained import pretrained

__all__ = ["MultiTask", "l2_penalty", "mean_penalty", "no_penalty", "pretrained"]
