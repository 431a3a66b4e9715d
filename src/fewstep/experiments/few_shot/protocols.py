"""The protocols that methods are compared under: functions from a method to its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewstep.experiments.few_shot.experiment import FewShot, Method
from fewstep.experiments.few_shot.gradient import GradientMethod, WholeNetworkMethod
from fewstep.experiments.row import Comparison, Row

AnyMethod = Method | type[GradientMethod]
"""A method with its options, or a class whose options are then the inner loop of MAML under the protocol."""
Printed = tuple[float, float | None]
"""A number of a paper, and half of its 95% interval if there is one."""

CLIPPED = {"clip_value": 10.0}
"""Clipping of the meta-gradient on miniImageNet (MAML's code)."""
MAML = "MAML, Table 1"
META_LSTM = "Meta-LSTM, Table 1"
REPTILE = "Reptile, Tables 1 and 2"


def omniglot(
    method: AnyMethod,
    printed: Mapping[tuple[int, int], Printed] | None = None,
    source: str = "",
    ways: tuple[int, ...] = (5, 20),
    last: bool = False,
    **settings: Any,
) -> list[Row]:
    """The MAML paper's protocol on Omniglot: 1 and 5 shots, and as many query images.

    Args:
        method: what is trained.
        printed: accuracies that a paper prints, by ways and shots.
        source: the paper and its table.
        ways: numbers of classes; a row for each, and for each number of shots.
        last: list it after the methods that are compared with 5 and with 20 classes.
        settings: arguments of [`row`][fewstep.experiments.few_shot.protocols.row] that differ.
    """
    rows = []
    for n, meta_batch, steps, test_steps in ((5, 32, 1, 3), (20, 16, 5, 5)):
        for k in (1, 5):
            if n in ways:
                made = _made(method, inner_lr=2.0, steps=steps, test_steps=test_steps)
                protocol = {"data": "omniglot", "ways": n, "shots": k, "queries": k, "meta_batch": meta_batch}
                row_of = {"section": (0, n, k, int(last)), "printed": (printed or {}).get((n, k)), "source": source}
                rows.append(row(made, **{**row_of, **protocol, **_test_shots(k, settings)}))
    return rows


def mini_imagenet(
    method: AnyMethod,
    printed: Mapping[int, Printed] | None = None,
    source: str = "",
    k_shots: tuple[int, ...] = (1, 5),
    **settings: Any,
) -> list[Row]:
    """The MAML paper's protocol on miniImageNet: 5 ways, 1 and 5 shots, 32 filters, gradients clipped.

    Args:
        method: what is trained.
        printed: accuracies that a paper prints, by shots.
        source: the paper and its table.
        k_shots: numbers of shots at test; a row for each.
        settings: arguments of [`row`][fewstep.experiments.few_shot.protocols.row] that differ.
    """
    rows = []
    for k in k_shots:
        made = _made(method, inner_lr=0.05, steps=5, test_steps=10)
        protocol = {"data": "mini-imagenet", "ways": 5, "shots": k, "queries": 15, "filters": 32, "meta_batch": 4}
        row_of = {"section": (1, k), "printed": (printed or {}).get(k), "source": source, "training": CLIPPED}
        rows.append(row(made, **{**row_of, **protocol, **_test_shots(k, settings)}))
    return rows


def equal_budget(method: AnyMethod, data: tuple[str, ...] = ("omniglot", "glyphs"), **settings: Any) -> list[Row]:
    """Every method after 128,000 training tasks, with settings that learn fast rather than the papers'.

    Args:
        method: what is trained.
        data: the data sets; a row for each.
        settings: arguments of [`row`][fewstep.experiments.few_shot.protocols.row] that differ.
    """
    made = _made(method, inner_lr=0.5, steps=1, test_steps=3, adapts_norms=True)
    protocol = {"ways": 5, "shots": 1, "queries": 1, "network": "flat", "outer_lr": 3e-3, "meta_batch": 32,
                "iterations": 4000}  # fmt: skip
    row_of = {"comparison": "budget", "summary": f"{made.summary}; 128,000 training tasks"}
    section = {"omniglot": (4,), "glyphs": (6,)}
    return [
        row(made, **{"data": name, "section": section[name], **row_of, **protocol, **_test_shots(1, settings)})
        for name in data
    ]


def row(
    method: Method,
    section: tuple[int, ...],
    printed: Printed | None = None,
    source: str = "",
    label: str | None = None,
    summary: str | None = None,
    training: Mapping[str, Any] | None = None,
    comparison: Comparison = "papers",
    name: str | None = None,
    by_default: bool | None = None,
    **settings: Any,
) -> Row:
    """One row. What is not explained here is explained by [`Row`][fewstep.experiments.row.Row].

    Args:
        method: what is trained.
        section: (0, ways, shots, last) in ``omniglot``, (1, shots) in ``mini_imagenet``, (2,) without convolutions,
            (3,) for MAML++, (4,) to (6,) at equal budget.
        printed: the paper's accuracy after the method's number of test steps.
        source: the paper and its table.
        label: the method's name if not given.
        summary: the method's if not given.
        training: fields of `Training` that differ, in addition to the method's.
        comparison: which part of the table the row stands in.
        name: made of data, ways, shots at test and label if not given.
        by_default: if not given, rows with a paper's number, and at equal budget those of glyphs.
        settings: fields of `FewShot`.
    """
    config, label, budget = FewShot(method, **settings), label or method.name, comparison != "papers"
    infix = "budget-" if budget and config.data == "omniglot" else ""
    shown = config.data == "glyphs" if budget else printed is not None
    mean, ci95 = printed or (None, None)
    return Row(
        name or f"{config.data}-{config.ways}way-{config.test_shots or config.shots}shot-{infix}{label}",
        summary or method.summary,
        config,
        table=config.data,
        label=label,
        comparison=comparison,
        section=section,
        by_default=shown if by_default is None else by_default,
        paper={} if mean is None else {config.test_steps: mean},
        paper_ci95={} if ci95 is None else {config.test_steps: ci95},
        source=source if printed else "",
        training={"compile": False, **method.training, **(training or {})},
        other_norms=method.other_norms,
    )


def _made(method: AnyMethod, adapts_norms: bool = False, **inner_loop: Any) -> Method:
    """The method; if it is a class, with the options of the protocol's inner loop."""
    if isinstance(method, Method):
        return method
    return method(**inner_loop, **({"adapts_norms": adapts_norms} if issubclass(method, WholeNetworkMethod) else {}))


def _test_shots(shots: int, settings: dict[str, Any]) -> dict[str, Any]:
    """A method that trains with other numbers of shots is tested with those of the protocol."""
    return {"test_shots": shots, **settings} if "shots" in settings else settings
