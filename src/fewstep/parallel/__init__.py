"""Several processes that share one meta-batch, on ``torch.distributed``."""

from fewstep.parallel.context import alone, current, start, together
from fewstep.parallel.processes import Processes, ProcessFailed

__all__ = ["ProcessFailed", "Processes", "alone", "current", "start", "together"]
