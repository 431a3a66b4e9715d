"""Policies before and after adaptation: paths in the plane (MAML, Figure 4), and films of robots."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewstep.figures.style import COLOURS, GREY, figure, legend_below, save, tidy, title
from fewstep.rl.environments.goals import Direction, Velocity
from fewstep.tasks import Task, generator

FRAMES_PER_SECOND = 10
"""The frame rate of the film, which is in real time."""


def plot_paths(learner: Any, path: Path, steps: int, goals: int = 4, seed: int = 0) -> Path:
    """Draw paths to goals: a row for each goal, a column before adaptation and after each update.

    Args:
        learner: a [`MetaPolicy`][fewstep.rl.MetaPolicy] of 2D navigation.
        path: the file to write.
        steps: the number of updates.
        goals: the number of goals.
        seed: the seed of the goals and episodes.

    Returns:
        The path of the file.
    """
    return save(draw_paths(learner, range(steps + 1), goals, seed), path)


def draw_paths(learner: Any, updates: Sequence[int], goals: int = 4, seed: int = 0) -> Any:
    """Draw the figure of [`plot_paths`][fewstep.figures.policies.plot_paths] with chosen columns.

    Args:
        learner: a [`MetaPolicy`][fewstep.rl.MetaPolicy] of 2D navigation.
        updates: the number of updates of each column.
        goals: the number of goals.
        seed: the seed of the goals and episodes.

    Returns:
        The Matplotlib figure.
    """
    from fewstep.rl import EnvironmentTasks

    tasks = EnvironmentTasks(learner.rollouts.environment).sample(goals, generator(seed, 0, stream=2))
    explored = learner.episodes(tasks, max(updates))
    drawn, grid = figure(columns=len(updates), rows=goals, width=2.3, height=2.3, sharex=True, sharey=True)
    for column, update in enumerate(updates):
        episodes = explored[update]
        for row, (goal, ax) in enumerate(zip(tasks.support.numbers.tolist(), grid[:, column], strict=True)):
            for episode in range(episodes.mask.shape[1]):
                walked = episodes.observations[row, episode, : int(episodes.lengths[row, episode]), :2].cpu()
                ax.plot(*walked.T, color=COLOURS[0], alpha=0.35, linewidth=0.7, label="an episode")
            ax.plot(0, 0, "o", color=GREY, markersize=4, label="start")
            ax.plot(*goal, "*", color=COLOURS[1], markersize=11, label="goal", zorder=3)
            ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal")
            returned = f"mean return {float(episodes.returns[row].mean()):.1f}"
            title(ax, f"{_when(update)}\n{returned}" if row == 0 else returned, size=9)
            tidy(ax, "x", "y")
            ax.label_outer()
    legend_below(drawn, grid[0][0])
    return drawn


def _when(update: int) -> str:
    return "before adaptation" if update == 0 else f"after {update} update{'s' * (update > 1)}"


def film(learner: Any, environment: Any, folder: Path, steps: int, seed: int = 0, seconds: float = 5.0) -> list[Path]:
    """Film a robot before and after adaptation to two tasks: ``film.gif``, and some of its frames as ``film.png``.

    The two tasks are the lowest and the highest of 16; the policy acts deterministically. Without an OpenGL renderer no
    file is written, and a warning says what to install.

    Args:
        learner: a [`MetaPolicy`][fewstep.rl.MetaPolicy] of the environment's tasks.
        environment: an environment with one copy and ``render_mode="rgb_array"``.
        folder: the folder of the files.
        steps: the number of updates; 0 for a policy that is not adapted.
        seed: the seed of the tasks.
        seconds: the length of the film in seconds.

    Returns:
        The paths of the files.
    """
    from fewstep.rl import EnvironmentTasks

    few = EnvironmentTasks(learner.rollouts.environment).sample(16, generator(seed, 0, stream=2))
    order = few.support.numbers[:, 0].argsort()
    shown = [(int(place), update) for place in (order[0], order[-1]) for update in sorted({0, steps})]
    titles, shots = [], []
    for place, update in shown:
        task = few[place]
        policy = learner.adapt(task.support, update)
        try:
            pictures, travelled = _shoot(policy, environment, task, seconds)
        except RuntimeError as error:
            warnings.warn(f"No film was drawn: {error}", stacklevel=2)
            return []
        words = task_in_words(environment, float(task.support.numbers[0]))
        titles.append(f"{words}, {_when(update)}: {travelled:+.1f} m in {seconds:g} s")
        shots.append(pictures)
    return [_write_gif(titles, shots, folder / "film.gif"), _write_strip(titles, shots, folder / "film.png")]


def task_in_words(environment: Any, number: float) -> str:
    """Describe a task of a robot, such as "direction: backwards" or "velocity: 1.25 m/s"."""
    goal = getattr(environment, "goal", None)
    if isinstance(goal, Direction):
        return f"direction: {'forwards' if number > 0 else 'backwards'}"
    return f"velocity: {number:.2f} m/s" if isinstance(goal, Velocity) else f"task {number:+.2f}"


@torch.no_grad()
def _shoot(policy: Any, environment: Any, task: Task, seconds: float) -> tuple[list[Any], float]:
    """Return frames of one episode, ``[height, width, 3]`` each, and the distance travelled along x in m."""
    environment.set_tasks(task.support.numbers[None])
    seen, infos = environment.reset(seed=0)
    start = float(infos["x_position"][0])
    every = max(1, round(environment.metadata["render_fps"] / FRAMES_PER_SECOND))
    pictures = []
    for t in range(round(seconds * environment.metadata["render_fps"])):
        if t % every == 0:
            pictures.append(environment.render()[0])
        seen, _, terminated, _, infos = environment.step(policy.act(seen, deterministic=True))
        if terminated[0]:
            break
    return pictures, float(infos["x_position"][0]) - start


def _write_gif(titles: Sequence[str], shots: Sequence[Sequence[Any]], path: Path) -> Path:
    from PIL import Image

    frames = []
    for t in range(max(map(len, shots))):
        now = [
            _titled(title, pictures[min(t, len(pictures) - 1)]) for title, pictures in zip(titles, shots, strict=True)
        ]
        rows = [np.concatenate(now[i : i + 2], 1) for i in range(0, len(now), 2)]
        frames.append(Image.fromarray(np.concatenate(rows)).quantize(64))
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 // FRAMES_PER_SECOND, loop=0)
    return path


def _titled(title: str, picture: Any) -> Any:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (picture.shape[1], picture.shape[0] + 16), "white")
    image.paste(Image.fromarray(picture), (0, 16))
    ImageDraw.Draw(image).text((4, 2), title, fill="black")
    return np.asarray(image)


def _write_strip(titles: Sequence[str], shots: Sequence[Sequence[Any]], path: Path, pictures: int = 6) -> Path:
    drawn, axes = figure(columns=pictures, rows=len(shots), width=1.9, height=1.2)
    for words, shot, row in zip(titles, shots, axes, strict=True):
        for number, ax in enumerate(row):
            t = round(number * (len(shot) - 1) / (pictures - 1))
            ax.imshow(shot[t])
            ax.set_axis_off()
            ax.text(4, 12, f"{t / FRAMES_PER_SECOND:.1f} s", fontsize=6, va="top", color="white")
        row[0].set_title(words, fontsize=8, loc="left")
    return save(drawn, path, colours=128)
