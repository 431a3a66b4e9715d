"""How a run is tested: by the row's protocol, or by another one, whose results have another file name."""

from __future__ import annotations

from typing import Any

from fewstep.evaluation import Evaluation, evaluate
from fewstep.experiments.catalogue import find
from fewstep.experiments.costs import costs
from fewstep.experiments.experiment import Experiment
from fewstep.experiments.other_norms import SHARED
from fewstep.experiments.provenance import provenance
from fewstep.experiments.row import Row
from fewstep.parallel import current


def standard_test(experiment: Experiment, row: Row) -> dict[str, Any]:
    """The options of the test that ``results.json`` holds: the experiment's own, and what its row adds."""
    own_norm = getattr(experiment, "norm", None)
    return {
        **experiment.test_protocol(),
        "seed": 0,
        "shots": tuple(k for k in row.other_shots if k != experiment.shots),
        "norm": tuple(norm for norm in row.other_norms if norm != own_norm) if own_norm in SHARED else (),
    }


def other_options(standard: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The given options that differ from the standard test's; ``None`` and ``()`` stand for the standard's.

    Examples:
        >>> other_options({"tasks": 600, "seed": 0, "norm": ("support",)}, {"tasks": 50, "seed": 0, "norm": ()})
        {'tasks': 50}
    """
    return {name: value for name, value in given.items() if value not in (None, ()) and value != standard.get(name)}


def results_name(options: dict[str, Any]) -> str:
    """The file name of the results of a test: ``results.json`` only for the standard test.

    Args:
        options: those that differ from the standard test's.

    Examples:
        >>> results_name({}), results_name({"steps": 4, "shots": (5, 20)})
        ('results.json', 'results-steps-4-shots-5-20.json')
    """
    words = [str(word) for name, value in options.items()
             for word in (name, *(value if isinstance(value, tuple) else (value,)))]  # fmt: skip
    return "-".join(["results", *words]) + ".json"


def evaluate_run(run: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Tests the learner of a run, and writes the results into its folder.

    Args:
        run: a [`Run`][fewstep.experiments.runs.Run].
        given: options; those that are ``None`` or ``()`` are the standard test's.

    Returns:
        What the file holds, and the ``file``.
    """
    experiment = run.experiment.tested_with(given["episodes"], given["goals"])
    own_norm = getattr(experiment, "norm", None)
    others = {"shots": tuple(k for k in given["shots"] if k != experiment.shots),
              "norm": tuple(norm for norm in given["norm"] if norm != own_norm)}  # fmt: skip
    standard = standard_test(run.experiment, find(run.name))
    options = other_options(standard, {**given, **others})
    chosen = {**standard, **options}
    which, state = run.checkpoint(given["checkpoint"])
    learner = run.learner_of(state)
    learners = {norm: run.learner_of(state, norm) for norm in chosen["norm"]}

    def test(learner: Any, source: Any) -> dict[str, Any]:
        return _numbers(evaluate(learner, source, chosen["tasks"], chosen["steps"], experiment.metric, chosen["seed"]))

    source = experiment.test_source(None, given["queries"])
    results = {
        "experiment": run.name,
        "options": options,
        "metric": experiment.metric.__name__,
        "tasks": chosen["tasks"],
        "steps": chosen["steps"],
        "queries": getattr(source, "queries", None),
        **test(learner, source),
        "seed": run.training.seed,
        "iterations": run.iterations(),
        "checkpoint": which,
        "checkpoint_iteration": state["iteration"],
        "test_seed": chosen["seed"],
    }
    if run.folder.has_checkpoint():  # while training there may be a best checkpoint before a last one
        steps, tasks = chosen["steps"], chosen["tasks"]
        results |= costs(experiment, run.training, run.folder.load(), learner, steps, tasks)
    results |= provenance(experiment, run.begun_with)
    if run.changes:
        results["changes"] = run.changes
    if chosen["shots"]:
        sources = {str(k): experiment.test_source(k, given["queries"]) for k in chosen["shots"]}
        results["other_shots"] = {k: test(learner, source) for k, source in sources.items()}
    if learners:
        results["other_norms"] = {norm: test(learner, source) for norm, learner in learners.items()}
    file = run.folder.path / results_name(options)
    if current().is_first:
        run.folder.write_json(file, results)
    return {**results, "file": file}


def _numbers(found: Evaluation) -> dict[str, list[float]]:
    return {"mean": found.mean, "ci95": found.ci95}
