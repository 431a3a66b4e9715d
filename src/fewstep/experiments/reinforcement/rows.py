"""The rows of reinforcement learning: each method in each world."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fewstep.experiments.reinforcement import methods, worlds
from fewstep.experiments.reinforcement.experiment import Method, Reinforcement
from fewstep.experiments.row import Row

_METHODS: tuple[Method, ...] = (
    methods.MAML(), methods.FOMAML(), methods.ANIL(), methods.MetaSGD(), methods.Context(), methods.EMAML(),
    methods.DiCE(), methods.ProMP(), methods.Pretrained(), methods.Oracle(), methods.Random(),
)  # fmt: skip
_WORLDS: dict[worlds.World, dict[str, Any]] = {
    worlds.Navigation("paper"): {"horizon": 100, "meta_batch": 20, "iterations": 150, "test_episodes": 40},
    worlds.CheetahDirection(): {},
    worlds.CheetahVelocity(): {},
    worlds.AntDirection(): {"shots": 40},
    worlds.AntVelocity(): {},
}
"""The worlds with the paper's settings."""
_TRAINING = {"compile": False, "log_every": 5, "checkpoint_every": 25, "validate_every": 25, "validation_tasks": 40}


def _row(world: worlds.World, method: Method) -> Row:
    settings = {**_WORLDS[world], **({"iterations": 1} if isinstance(method, methods.Random) else {})}
    paper = method.printed.get(world.name, ())
    return Row(
        f"{world.name}-{method.name}",
        f"{method.summary}{'' if isinstance(world, worlds.Navigation) else '; the robots differ from the papers'}",
        Reinforcement(world, method, **settings),
        table=world.table,
        label=method.name,
        paper=dict(enumerate(paper)),
        source=method.source.format(figure=world.figure) if paper else "",
        training=_TRAINING,
    )


def _random_of_the_authors() -> Row:
    """The random initialisation with the settings of the authors' script."""
    ours = _row(worlds.Navigation("paper"), methods.Random())
    return replace(
        ours,
        name="navigation-random-tanh",
        label="random-tanh",
        summary=f"{ours.summary}, with the authors' settings: tanh and a step size of 0.5",
        config=replace(ours.config, method=methods.Random(inner_lr=0.5), activation="tanh"),
    )


def _rows() -> list[Row]:
    rows = []
    for world in _WORLDS:
        rows += [_row(world, method) for method in _METHODS]
        rows += [_random_of_the_authors()] if isinstance(world, worlds.Navigation) else []
    return rows


ROWS = _rows()
