"""Experiments of reinforcement learning: 2D navigation, HalfCheetah and Ant, their methods and their rows."""

from fewstep.experiments.reinforcement.experiment import Reinforcement as Reinforcement
