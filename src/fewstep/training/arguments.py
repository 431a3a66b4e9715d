"""Checks of the arguments of `fit`, before anything is drawn, trained or written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fewstep.arguments import check_number, check_path, check_seed, check_truth, check_whole
from fewstep.learner.checks import check_metric
from fewstep.tasks.source_check import check_source, is_source


def check_arguments(
    learner: Any,
    counts: Mapping[str, int],
    clipping: Mapping[str, float | None],
    source: Any,
    validation: Any,
    validating: Mapping[str, Any],
    seed: Any,
    scheduler: Any,
    run: Any,
    deadline: Any,
) -> None:
    """Raises if an argument of `fit` is of another kind, out of bounds or without effect.

    Args:
        learner: what is trained.
        counts: the whole numbers of at least 1, by name.
        clipping: the bounds of the meta-gradient, by name.
        source: where training tasks come from.
        validation: where validation tasks come from, if anywhere.
        validating: the options of validation that were given, by name.
        seed: seed of the meta-batches.
        scheduler: a learning-rate scheduler or `None`.
        run: a folder or `None`.
        deadline: a time or `None`.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: a number is out of bounds, an option has no effect, or a source ignores its generator.
    """
    if not callable(getattr(learner, "meta_loss", None)) or isinstance(learner, type):
        raise TypeError(
            f"fit: a learner has meta_loss(tasks); got {type(learner).__name__}. Make one from a model, such as "
            "fewstep.maml(model, loss, inner_lr=0.01)."
        )
    check_whole("fit", **counts)
    check_number("fit", 0, above=True, **{name: bound for name, bound in clipping.items() if bound is not None})
    check_seed("fit", seed=seed)
    if run is not None:
        check_path("fit", run=run)
    if scheduler is not None and not callable(getattr(scheduler, "step", None)):
        raise TypeError(
            f"fit: scheduler must have step(), such as torch.optim.lr_scheduler.StepLR(...); got {scheduler!r}."
        )
    if deadline is not None and deadline != math.inf:
        check_number("fit", deadline=deadline)
    if not is_source(source):
        raise TypeError(f"fit: a task source has sample(n, generator); got {_shown(source)}.")
    check_source("fit", source, counts["meta_batch"])
    if validation is None and validating:
        raise ValueError(f"fit: {', '.join(validating)} without validation tasks; pass validation=SOURCE.")
    if validation is None:
        return
    if not is_source(validation):
        raise TypeError(f"fit: validation= is a task source with sample(n, generator); got {_shown(validation)}.")
    check_source("fit: validation", validation, min(counts["num_validation_tasks"], 100))
    check_whole("fit", 0, **{name: validating[name] for name in ("validation_steps",) if name in validating})
    check_truth("fit", **{name: validating[name] for name in ("maximize",) if name in validating})
    if "metric" in validating:
        check_metric(validating["metric"])


def _shown(source: Any) -> str:
    return f"the class {source.__name__}" if isinstance(source, type) else type(source).__name__
