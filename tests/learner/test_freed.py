"""A learner that is dropped is freed at once, with all its parameters, not only by the cyclic collector."""

import contextlib
import gc
import warnings
import weakref
from collections.abc import Iterator

import pytest
import torch

import fewstep
from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.settings import settings_of, with_settings
from fewstep.tasks import Sinusoids, generator
from fewstep.tasks.batch import cast_like

GLYPHS = ("anil", "meta-sgd", "maml++", "cavia", "context", "meta-lstm", "protonet", "matching", "matching-context",
          "relation", "siamese", "mann", "fine-tuning", "nearest-neighbour")  # fmt: skip
LEARNERS = [
    *("sinusoid-5shot-maml", "sinusoid-5shot-fomaml", "sinusoid-5shot-multi-task"),
    *(f"glyphs-5way-1shot-{method}" for method in GLYPHS),
    *("navigation-maml", "navigation-e-maml", "navigation-dice", "navigation-promp"),
]
"""Experiments without files and without simulators, whose learners are of every kind."""


@pytest.fixture(scope="module", autouse=True)
def _imported():
    """PyTorch keeps the frames of its first vmap until the collector runs."""
    fewstep.maml(torch.nn.Linear(1, 1), fewstep.mse, 0.1).meta_loss(Sinusoids().sample(2)).backward()
    fewstep.maml(torch.nn.Linear(1, 1), fewstep.mse, 0.1).score(Sinusoids().sample(2))


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def small(name: str):
    experiment = EXPERIMENTS[name].config
    sizes = {"meta_batch": 2, "filters": 4, "steps": 1, "test_steps": 1, "hidden": 8, "num_envs": 2, "horizon": 3}
    return with_settings(experiment, **{key: sizes[key] for key in settings_of(experiment).keys() & sizes.keys()})


def alive(learner: torch.nn.Module) -> list[weakref.ref]:
    return [weakref.ref(value) for value in (learner, *learner.parameters())]


@pytest.mark.parametrize("name", LEARNERS)
def test_a_trained_learner_is_freed_at_once(name: str):
    experiment = small(name)
    source = experiment.train_source()
    with collector_off(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where vmap does not support the model
        learner = experiment.learner(compile=False)
        optimizer = experiment.outer_optimizer(learner)
        tasks = cast_like(source.sample(2, generator(0, 0)), list(learner.parameters()))
        if hasattr(optimizer, "meta_step"):
            optimizer.meta_step(tasks)
        else:
            learner.meta_loss(tasks).backward()
        references = alive(learner)
        del learner, optimizer
        assert [reference() for reference in references if reference() is not None] == []


@pytest.mark.parametrize("vectorize", [True, False])
def test_a_learner_is_freed_after_fit_and_evaluation(vectorize: bool, tmp_path):
    with collector_off():
        learner = fewstep.maml(fewstep.models.MLP(1, [8], 1), fewstep.mse, 0.01, vectorize=vectorize)
        fewstep.fit(learner, Sinusoids(), iterations=2, validation=Sinusoids(), num_validation_tasks=2, progress=False,
                    run=tmp_path / "run")  # fmt: skip
        fewstep.evaluate(learner, Sinusoids(), 3)
        adapted = learner.adapt(Sinusoids().sample(1)[0].support)
        references = [*alive(learner), weakref.ref(adapted)]
        del learner, adapted
        assert [reference() for reference in references if reference() is not None] == []
