"""Is it feature reuse? The measurements of Raghu et al. (2019) for a run: freezing, similarity of layers, NIL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewstep.baselines import EpisodicLearner, PretrainedClassifier
from fewstep.evaluation import Comparison, blocks_of, cca, cka, freezing, layer_similarity, nil
from fewstep.evaluation.activations import activations
from fewstep.evaluation.feature_reuse import positions
from fewstep.experiments.few_shot import FewShot
from fewstep.experiments.provenance import provenance
from fewstep.experiments.runs import Run
from fewstep.figures.feature_reuse import plot_feature_reuse
from fewstep.learner import MetaLearner
from fewstep.models import Conv4
from fewstep.parallel import current

_QUERIES = 30
"""Query images of a class to compare features on, where there are as many."""
_POINTS = 500
"""Query points of a sine wave."""
_POSITIONS = 4000
"""Positions of a feature map to compare, drawn from all; CCA takes a decomposition of each such matrix."""
_AT_ONCE = 20
"""Tasks in memory at a time."""


def analyse(
    run: Run,
    tasks: int = 200,
    steps: int | None = None,
    queries: int | None = None,
    seed: int = 0,
    checkpoint: str | None = None,
) -> dict[str, Any]:
    """Measures what adaptation changes, and writes ``analysis.json`` and ``feature-reuse.png`` into the run folder.

    Accuracies are measured on the query images of the paper's protocol; features are compared on many more, without
    which CCA says nothing.

    Args:
        run: of a method that adapts in gradient steps.
        tasks: number of test tasks.
        steps: inner steps; the experiment's at test if not given.
        queries: query examples (of a class) to compare features on; up to 30 if not given (for sine waves, 500).
        seed: of the test tasks.
        checkpoint: ``"last"`` or ``"best"``; the experiment's choice if not given.

    Returns:
        What ``analysis.json`` holds, and the ``files`` written. The first row of ``freezing`` is the method as it is;
        where no block is adapted (CAVIA) it is the only one. ``nil`` is ``None`` where there are no classes.

    Raises:
        ValueError: the run's method takes no inner steps.
    """
    which, state = run.checkpoint(checkpoint)
    learner = run.load_learner(which)
    experiment = run.experiment
    steps = experiment.test_steps if steps is None else steps
    _check(run, learner, steps)
    network, prefix = _network(learner.model)
    blocks = {f"{prefix}{name}": f"{prefix}{names}" for name, names in blocks_of(network).items()}
    adapted = [block for block in blocks if any(name.startswith(f"{block}.") for name in learner.adapts)]
    paper_tasks = experiment.test_source()
    many = experiment.test_source(queries=queries or _enough(experiment))
    options: dict[str, Any] = {"num_tasks": tasks, "seed": seed, "meta_batch": _AT_ONCE}

    similarities = layer_similarity(
        learner,
        many,
        steps=steps,
        layers=_ends(network, list(blocks)),
        similarities={"CKA": cka, "CCA": cca, "CCA by chance": _by_chance},
        matrix=_some_positions,
        **options,
    )
    similarities = {name: Comparison(name, tuple(blocks), found.values) for name, found in similarities.items()}
    frozen = freezing(
        learner, paper_tasks, steps=steps, metric=experiment.metric, blocks=blocks if adapted else {}, **options
    )
    without_head = None
    if isinstance(network, Conv4):
        without_head = nil(learner, paper_tasks, _penultimate(network, prefix), **options)

    found = {
        "experiment": run.name,
        "metric": frozen.metric,
        "tasks": tasks,
        "steps": steps,
        "queries": paper_tasks.queries,
        "queries_of_similarity": many.queries,
        "freezing": _all(frozen),
        "nil": None if without_head is None else {"mean": without_head.mean[0], "ci95": without_head.ci95[0]},
        "similarity": {name: _all(comparison) for name, comparison in similarities.items()},
        "seed": run.training.seed,
        "iterations": run.iterations(),
        "checkpoint": which,
        "checkpoint_iteration": state["iteration"],
        "test_seed": seed,
        **provenance(experiment, run.training),
    }
    numbers, figure = run.folder.path / "analysis.json", run.folder.path / "feature-reuse.png"
    if current().is_first:
        shown = {name: comparison for name, comparison in similarities.items() if name != "CCA by chance"}
        title = f"{run.name}, {steps} step{'s' * (steps != 1)}, {tasks} test tasks"
        plot_feature_reuse(shown, frozen, figure, without_head, title)
        run.folder.write_json(numbers, found)
    return {**found, "files": [numbers, figure]}


def _check(run: Run, learner: Any, steps: int) -> None:
    if not isinstance(learner, MetaLearner):
        fixed = isinstance(learner, (EpisodicLearner, PretrainedClassifier))
        why = "whose features are the same for every task" if fixed else "which is none"
        raise ValueError(
            "analyse compares a network before and after a MetaLearner's gradient steps; "
            f"{run.name} is a {type(learner).__name__}, {why}. "
            "Analyse a run of a gradient method: maml, fomaml, anil, boil, meta-sgd, ..."
        )
    if steps < 1:
        raise ValueError(
            f"{run.name} is not adapted at test (0 inner steps), so there is nothing to compare; give --steps to see "
            "what steps would change."
        )


def _network(model: nn.Module) -> tuple[nn.Module, str]:
    """The network whose blocks are looked at, and what its parameters' names begin with: CAVIA's is a part."""
    inside = getattr(model, "network", None)
    return (inside, "network.") if isinstance(inside, Conv4) else (model, "")


def _ends(network: nn.Module, blocks: list[str]) -> list[str]:
    """The module whose output is that of each block: in a plain sequence the last before the next block.

    A linear layer alone would not do: of a single input, whatever its weights, its outputs are alike.
    """
    if not isinstance(network, nn.Sequential):
        return blocks
    names = [name for name, _ in network.named_children()]
    following = [names.index(block) for block in blocks[1:]] + [len(names)]
    return [names[place - 1] for place in following]


def _enough(experiment: Any) -> int:
    if not isinstance(experiment, FewShot):
        return _POINTS
    source = experiment.test_source()
    return min(_QUERIES, int(source.dataset.starts.diff().min()) - source.shots)


def _penultimate(network: Conv4, prefix: str) -> Any:
    last = f"{prefix}body.{len(network.body) - 1}"
    return lambda model, x: network.features_of(activations(model, [last], x)[last])


def _some_positions(output: Tensor) -> Tensor:
    """Activations as ``[examples, features]`` of at most so many positions, the same ones before and after."""
    every = positions(output)
    if len(every) <= _POSITIONS:
        return every
    return every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:_POSITIONS]]


def _by_chance(before: Tensor, after: Tensor) -> Tensor:
    """CCA of features that have nothing to do with each other: those of other examples."""
    return cca(before, after.roll(len(after) // 2, 0))


def _all(found: Comparison) -> dict[str, Any]:
    return {"names": list(found.names), "mean": found.mean, "ci95": found.ci95}
