"""Two processes compute the meta-gradient of one for the rows of `fewstep list`, at a small size on small images.

With FEWSTEP_EVERY_ROW=1 for each of them; without it for one row of each method with each network, in the plane and
with one robot.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep import parallel
from fewstep.datasets import LabelledImages
from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.few_shot import FewShot
from fewstep.experiments.reinforcement.worlds import Robot
from fewstep.tasks.batch import cast_like

TASKS = 3


def noise(experiment: FewShot, split: str) -> LabelledImages:
    """A few classes of random images."""
    images = torch.randint(256, (40, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return LabelledImages(images, torch.arange(9) * 5, [str(i) for i in range(8)])


def small(config: Any) -> Any:
    """The experiment with few examples, classes, steps, filters, episodes and time steps."""
    changes: dict[str, Any] = {"iterations": 10}
    if isinstance(config, FewShot):
        changes |= {"meta_batch": TASKS, "ways": 3, "filters": 4, "shots": 1, "queries": 1}
        changes |= {"data": "glyphs"}
        changes |= {"test_queries": 1, "test_shots": None, "optimizer": "adam", "outer_lr": 1e-3}
    elif hasattr(config, "world"):
        changes |= {"meta_batch": TASKS, "shots": 2, "horizon": 4, "chunk": 2}
    if "steps" in vars(config.method):
        changes["method"] = replace(config.method, steps=min(config.method.steps, 2))
    return replace(config, **changes)


def kind_of(config: Any) -> str:
    """What rows share that are computed once."""
    config = small(config)
    if EVERY:
        return repr(config)
    if isinstance(config, FewShot):
        where = config.network
    else:
        where = "robot" if isinstance(getattr(config, "world", None), Robot) else type(config).__name__
    return f"{config.method.name} {where}"


EVERY = os.environ.get("FEWSTEP_EVERY_ROW") == "1"
NAMES: dict[str, list[str]] = {}
for _name, _row in EXPERIMENTS.items():
    NAMES.setdefault(kind_of(_row.config), []).append(_name)
OF_METHOD: dict[str, list[str]] = {}
for _names in NAMES.values():
    _config = EXPERIMENTS[_names[0]].config
    OF_METHOD.setdefault(f"{type(_config).__name__}-{_config.method.name}", []).append(_names[0])


def computed(names: list[str], shared: bool) -> dict[str, Tensor]:
    """Loss and gradients of the rows."""
    before, FewShot.images = FewShot.images, noise  # type: ignore[method-assign, assignment]
    found: dict[str, Tensor] = {}
    try:
        for name in names:
            torch.manual_seed(0)
            experiment = small(EXPERIMENTS[name].config)
            learner = experiment.learner(compile=False).double()
            if hasattr(learner, "_choices"):
                learner._choices.compares = False  # other tests compare second derivatives
            tasks = experiment.train_source().sample(experiment.meta_batch, torch.Generator().manual_seed(1))
            with parallel.together() if shared else parallel.alone():
                loss = learner.meta_loss(cast_like(tasks, list(learner.parameters())))
                loss.backward()
            found[f"{name}: loss"] = loss.detach()
            found |= {f"{name}: {key}": v.grad for key, v in learner.named_parameters() if v.grad is not None}
    finally:
        FewShot.images = before  # type: ignore[method-assign]
    return found


def test_every_row_is_computed() -> None:
    assert sum(map(len, NAMES.values())) == len(EXPERIMENTS)
    assert sum(map(len, OF_METHOD.values())) == len(NAMES)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("method", OF_METHOD)
def test_two_processes_equal_one(two: Any, method: str) -> None:
    if method.startswith("Reinforcement"):
        pytest.importorskip("mujoco")
    alone = computed(OF_METHOD[method], False)
    first, second = two(computed, OF_METHOD[method], True)
    assert first.keys() == alone.keys()
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-6, atol=1e-8, msg=f"{name} differs")
