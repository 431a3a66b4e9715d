"""Reinforcement learning: 2D navigation, cheetahs and ants, their methods, and the rows of the MAML paper."""

from fewstep.experiments.reinforcement.experiment import Reinforcement as Reinforcement
