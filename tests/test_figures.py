"""The figures: what they draw, and that they are written."""

from pathlib import Path

import pytest
from torch import nn

import fewstep
from fewstep.figures import inner_steps, learning_curves
from fewstep.figures.inner_steps import plot_over_steps
from fewstep.figures.learning_curves import plot_learning_curve
from fewstep.figures.sinusoids import plot_fits


def drawn_by(monkeypatch: pytest.MonkeyPatch, draw) -> list:
    """The panels of a figure."""
    kept = []
    for module in (inner_steps, learning_curves):
        monkeypatch.setattr(module, "save", lambda drawn, path, colours=None: kept.append(drawn) or path)
    draw()
    return kept[0].axes


def test_accuracy_is_drawn_in_percent_and_errors_logarithmically(monkeypatch: pytest.MonkeyPatch):
    rows = [{"iteration": i, "loss": 1 / i} for i in range(1, 100)]
    rows += [{"iteration": i, "validation": i / 100, "validation_ci95": 0.1} for i in (50, 99)]
    draw = lambda metric: lambda: plot_learning_curve({"a": rows}, Path("a.png"), metric, paper=0.987)  # noqa: E731
    losses, accuracies = drawn_by(monkeypatch, draw("accuracy"))
    assert (losses.get_yscale(), accuracies.get_yscale()) == ("log", "linear")
    assert accuracies.get_ylabel() == "accuracy (%)"
    assert list(accuracies.lines[0].get_ydata()) == pytest.approx([50, 99])
    assert accuracies.lines[1].get_ydata()[0] == pytest.approx(98.7)
    assert accuracies.get_ylim()[1] <= 100.5
    _, errors = drawn_by(monkeypatch, draw("mse"))
    assert (errors.get_yscale(), list(errors.lines[0].get_ydata())) == ("log", [0.5, 0.99])
    unvalidated = lambda: plot_learning_curve({"a": rows[:99]}, Path("a.png"))  # noqa: E731
    assert len(drawn_by(monkeypatch, unvalidated)) == 1
    curves = {"K = 1": {"ours": {"mean": [0.2, 0.9], "ci95": [0.01, 0.02]}}}
    steps = drawn_by(monkeypatch, lambda: plot_over_steps(curves, Path("a.png"), "accuracy", {1: 0.987}))[0]
    assert list(steps.lines[0].get_ydata()) == pytest.approx([20, 90])
    assert (steps.lines[1].get_xdata()[0], steps.lines[1].get_ydata()[0]) == (1, pytest.approx(98.7))
    assert steps.collections[0].get_paths()[0].get_extents().ymax == pytest.approx(92)  # the band


def test_figures_are_written(tmp_path: Path):
    learner = fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01)
    rows = [{"iteration": i, "loss": 1 / i} for i in range(1, 300)]
    rows.append({"iteration": 299, "validation": 0.5, "validation_ci95": 0.1})
    curve = {"mean": [3.0, 1.0], "ci95": [0.1, 0.1]}
    for file in (
        plot_fits({"a": learner, "b": learner}, tmp_path / "fits.png"),
        plot_learning_curve({"a": rows}, tmp_path / "new" / "curve.png"),
        plot_over_steps({"K = 5": {"a": curve}, "K = 10": {"a": curve, "b": curve}}, tmp_path / "steps.png", "error"),
    ):
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size > 10_000
