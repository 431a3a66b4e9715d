"""Few-shot classification of images: the setting, its networks and methods, the papers' protocols, and the tables."""

from fewstep.experiments.few_shot.experiment import FewShot as FewShot
