"""Sinusoid regression: the setting, its methods, and the rows of the MAML paper."""

from fewstep.experiments.sinusoid.experiment import Sinusoid as Sinusoid
