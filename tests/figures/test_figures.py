"""The figures: what they draw, and that they are written."""

import math
from pathlib import Path

import pytest
from torch import nn

import fewstep
from fewstep.figures import inner_steps, learning_curves
from fewstep.figures.inner_steps import plot_over_steps
from fewstep.figures.learning_curves import plot_learning_curve
from fewstep.figures.policies import task_in_words
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


def test_a_short_run_shows_its_points(monkeypatch: pytest.MonkeyPatch):
    rows = [{"iteration": 60, "loss": 1.5}, {"iteration": 60, "validation": 0.4, "validation_ci95": 0.02}]
    training, validation = drawn_by(monkeypatch, lambda: plot_learning_curve({"a": rows}, Path("a.png"), "accuracy"))
    assert training.lines[0].get_marker() == validation.lines[0].get_marker() == "o"
    assert validation.containers, "the interval of a single validation is a bar"
    assert len([tick for tick in training.get_yticks() if 1.4 < tick < 1.6]) >= 2
    long = [{"iteration": i, "loss": 1 / i} for i in range(1, 1000)]
    (training,) = drawn_by(monkeypatch, lambda: plot_learning_curve({"a": long}, Path("a.png")))
    assert {line.get_marker() for line in training.lines} <= {"", "None"}


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([2.0, 1.0], "log"),
        ([0.5, -0.5], "linear"),
        ([math.nan, 1.0, 2.0], "log"),
        ([math.nan], "linear"),
        ([1.0], "linear"),
        ([], "linear"),
    ],
)
def test_losses_are_drawn_whatever_their_sign(monkeypatch: pytest.MonkeyPatch, losses: list[float], scale: str):
    rows = [{"iteration": i, "loss": loss} for i, loss in enumerate(losses)]
    (axes,) = drawn_by(monkeypatch, lambda: plot_learning_curve({"a": rows}, Path("a.png")))
    assert axes.get_yscale() == scale
    axes.figure.canvas.draw()


def test_legends_are_below_the_curves(monkeypatch: pytest.MonkeyPatch):
    rows = [{"iteration": 1, "loss": 1.0}, {"iteration": 1, "validation": 0.5, "validation_ci95": math.inf}]
    runs = {"5-way $1$ shot": rows, "<b>": rows}
    axes = drawn_by(monkeypatch, lambda: plot_learning_curve(runs, Path("a.png"), "mse", paper=0.3))
    drawn = axes[0].figure
    drawn.canvas.draw()
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["5-way $1$ shot", "<b>", "paper, at test"]
    assert not any(text.get_parse_math() for text in legend.get_texts())
    assert all(legend.get_window_extent().y1 < ax.get_tightbbox().y0 for ax in axes)


def test_tasks_of_robots_are_named():
    from fewstep.rl.environments import HalfCheetahDirection, HalfCheetahVelocity

    pytest.importorskip("mujoco")
    direction, velocity = HalfCheetahDirection(num_envs=1), HalfCheetahVelocity(num_envs=1)
    assert task_in_words(direction, -1.0) == "direction: backwards"
    assert task_in_words(direction, 1.0) == "direction: forwards"
    assert task_in_words(velocity, 1.25) == "velocity: 1.25 m/s"
    assert task_in_words(object(), 1.25) == "task +1.25"
