"""Tasks and their sources."""

from fewstep.tasks.batch import Batch, Task
from fewstep.tasks.episodes import Episodes
from fewstep.tasks.sinusoids import SinusoidPool, Sinusoids
from fewstep.tasks.source import TaskSource, generator
from fewstep.tasks.task_list import TaskList

__all__ = ["Batch", "Episodes", "SinusoidPool", "Sinusoids", "Task", "TaskList", "TaskSource", "generator"]
