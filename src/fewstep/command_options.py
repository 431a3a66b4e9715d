"""The options of the commands, with their help texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from fewstep.experiments.other_norms import OtherNorm


@dataclass(frozen=True)
class Place:
    """Where the run goes."""

    run: Path | None = None
    """The run folder; runs/EXPERIMENT-seedS if not given."""


@dataclass(frozen=True)
class Train:
    """Train an experiment, or go on with a run.

    `fewstep list` shows the experiments, and `fewstep train EXPERIMENT --help` the options of one.
    """

    experiment: tyro.conf.Positional[str | None] = None
    """The name of an experiment, such as sinusoid-5shot-maml."""
    resume: Path | None = None
    """Instead of an experiment: the run folder to go on with, exactly where its last checkpoint left it."""
    device: str | None = None
    """With --resume: where to go on, if not where it was begun: cpu, cuda, cuda:1, mps."""
    threads: int | None = None
    """With --resume: CPU threads from now on, if not as many as before."""


@dataclass(frozen=True)
class Evaluate:
    """Test a run over many tasks, before adaptation and after every inner step, and write its results.json."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    tasks: int | None = None
    """Number of test tasks; the experiment's own if not given: 600, and 40 for reinforcement learning."""
    steps: int | None = None
    """Inner steps; the experiment's own if not given (10 for the sinusoid)."""
    queries: int | None = None
    """Query examples (of a class); the experiment's own if not given: as many as shots for images, the papers' number.
    Under batch norms they are classified together, so that more of them help."""
    shots: tuple[int, ...] = ()
    """Test with these numbers of support examples as well."""
    norm: tuple[OtherNorm, ...] = ()
    """Test the same weights under these normalisation policies as well: batch, support (not transductive)."""
    episodes: int | None = None
    """In reinforcement learning, episodes for each update; the experiment's own if not given: 40 for 2D navigation."""
    goals: Literal["drawn", "paper"] | None = None
    """In 2D navigation, the goals to test on: drawn at random, or the paper's 40; the experiment's own if not given."""
    seed: int = 0
    """Of the test tasks."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint: best in validation, or last; the experiment's own choice if not given."""
    device: str | None = None
    """Where to test: cpu, cuda, cuda:1, mps; where it was trained if not given."""
    threads: int | None = None
    """CPU threads; as in training if not given."""


@dataclass(frozen=True)
class Analyse:
    """Measure what adaptation changes in a run: freezing blocks, similarity of each layer before and after, and NIL.

    Writes analysis.json and feature-reuse.png into the run folder. For methods that adapt in gradient steps.
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    tasks: int = 200
    """Number of test tasks."""
    steps: int | None = None
    """Inner steps; the experiment's own at test if not given."""
    queries: int | None = None
    """Query examples (of a class) to compare features on; as many as there are, up to 30, if not given (500 points of
    a sine wave). Accuracies are measured with the experiment's own number."""
    seed: int = 0
    """Of the test tasks."""
    checkpoint: Literal["best", "last"] | None = None
    """Which checkpoint: best in validation, or last; the experiment's own choice if not given."""
    device: str | None = None
    """Where: cpu, cuda, cuda:1, mps; where it was trained if not given."""
    threads: int | None = None
    """CPU threads; as in training if not given."""


@dataclass(frozen=True)
class Plot:
    """Draw a run's figures into its folder: learning curve, inner steps if it was tested, and the experiment's own."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    device: str | None = None
    """Where: cpu, cuda, cuda:1, mps; where it was trained if not given."""
    threads: int | None = None
    """CPU threads; as in training if not given."""


@dataclass(frozen=True)
class Reproduce:
    """Train and test the rows of a table and set ours beside the papers'. Interrupted, it goes on later.

    First it says what it will train, and about how long that takes here. A row that fails does not stop the others.
    """

    table: tyro.conf.Positional[str] = "sinusoid"
    """Which table: sinusoid, omniglot, mini-imagenet, glyphs, navigation, cheetah or ant."""
    rows: str | None = None
    """Only the experiments whose names match this shell-style pattern, e.g. '*-5shot-*'. If not given, for omniglot and
    mini-imagenet the rows that a paper prints a number for, for the others all. '*' is all of them."""
    seeds: tuple[int, ...] = (0,)
    """One run for each of these seeds."""
    budget: int | None = None
    """Train each row for so many training tasks, or to its own end if that is sooner. More can be asked for later."""
    iterations: int | None = None
    """The same in outer iterations."""
    runs: Path = Path("runs/reproduction")
    """Where the run folders go. A run of the same name that is there goes on; if it has seen as many iterations as are
    asked for, it is only tested."""
    to: Path | None = None
    """Where EXPERIMENT-seedS.json, the learning curves, tables and figures go; RUNS/results if not given."""
    results: Path | None = None
    """Results that are there already: their rows are not trained again. Only read; those in TO count in any case. If
    not given, with --max-time reproduction/TABLE, if that exists. With --no-train, the results to show."""
    max_time: str | None = None
    """End by itself before so long has passed since the start of the command: 90s, 9m, 1.5h, or a number of seconds.
    Rows that a paper prints a number for go first, and of these those that take the least time. A run that is cut is
    left in TO/unfinished, ready to go on, with its learning curve in TO/curves."""
    unfinished: Path | None = None
    """Run folders to go on with where RUNS has none, or one of fewer iterations. Only read: they are copied. If not
    given, reproduction/TABLE/unfinished, if that exists. Those in TO/unfinished are gone on with in any case."""
    device: str = "cpu"
    """Where to train: cpu, cuda, cuda:1, mps."""
    threads: int = 1
    """CPU threads; 0 leaves it to PyTorch."""
    compile: bool = True
    """Compile the meta-step on CPUs, in the rows that do not say otherwise."""
    fuse_from: int = 10_000
    """On CUDA devices, fuse the kernels of the meta-step in rows of at least so many iterations; they are recorded as a
    CUDA graph in any case."""
    dry_run: bool = False
    """Say what would be trained and about how long it would take, and train nothing."""
    train: bool = True
    """Train what is missing; with --no-train only show what results there are."""


@dataclass(frozen=True)
class Download:
    """Fetch a data set's official files, check them, and go on where an earlier attempt was cut off."""

    dataset: tyro.conf.Positional[Literal["omniglot"]]
    """Which data set."""
    root: Path | None = None
    """The folder of the data sets; the environment variable FEWSTEP_DATA, or data, if not given."""


@dataclass(frozen=True)
class Demo:
    """Meta-learn sine waves with MAML beside a pretrained network, print a table and draw the paper's Figure 2."""

    iterations: int = 20_000
    """Outer iterations of each of the two (the paper trains 70,000)."""
    run: Path = Path("runs/demo")
    """The folder for what it makes; one that is there already is made anew."""
    compile: bool = True
    """Compile the meta-step."""


@dataclass(frozen=True)
class List:
    """Show every experiment with its summary and the paper's numbers."""

    match: tyro.conf.Positional[str] = "*"
    """Only names that match this shell-style pattern."""
