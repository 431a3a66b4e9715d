"""The commands: list, train, evaluate, analyse, plot, reproduce, data, demo."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable
from dataclasses import make_dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import tyro

from fewstep.command_options import Analyse, Demo, Download, Evaluate, List, Place, Plot, Reproduce, Train
from fewstep.evaluation.numbers import format_metric
from fewstep.experiments.experiment import Training
from fewstep.experiments.runs import EXPERIMENTS, Run, find


def dispatch(command: str, words: list[str], began: float) -> None:
    """Runs a command with the words that follow it; the program began at that time of ``time.monotonic()``."""
    commands: dict[str, Callable[[list[str]], None]] = {
        "list": lambda words: list_experiments(_parse(List, "list", words)),
        "train": train,
        "evaluate": lambda words: evaluate(_parse(Evaluate, "evaluate", words)),
        "analyse": lambda words: analyse(_parse(Analyse, "analyse", words)),
        "plot": lambda words: plot(_parse(Plot, "plot", words)),
        "reproduce": lambda words: _reproduce(_parse(Reproduce, "reproduce", words), began),
        "data": data,
        "demo": lambda words: demo(_parse(Demo, "demo", words)),
    }
    if command not in commands:
        near = difflib.get_close_matches(command, commands, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"there is no command {command!r}.{hint} The commands are {', '.join(commands)}.")
    commands[command](words)


def list_experiments(options: List) -> None:
    """``fewstep list``"""
    rows = [row for name, row in EXPERIMENTS.items() if fnmatchcase(name, options.match)]
    if not rows:
        raise ValueError(f"no experiment matches {options.match!r}; `fewstep list` shows all.")
    width = max(len(row.name) for row in rows)
    for row in rows:
        metric = row.config.metric.__name__
        paper = ", ".join(f"{format_metric(metric, value)} after {k}" for k, value in row.paper.items())
        print(f"{row.name:<{width}}  {row.summary}" + (f"  [paper: {paper} steps]" if paper else ""))


def train(words: list[str]) -> None:
    """``fewstep train``"""
    if not words or words[0].startswith("-"):
        options = _parse(Train, "train", words or ["--help"])
        if options.resume is None and options.experiment is not None:
            raise ValueError(f"the experiment comes first: fewstep train {options.experiment} [options].")
        if options.resume is None:
            raise ValueError("train needs an experiment (see `fewstep list`) or --resume RUN.")
        run = Run(options.resume, options.device, options.threads)
    else:
        row = find(words[0])
        # The experiment's own fields become options, with the row's values as defaults.
        parts = [("experiment", type(row.config)), ("training", Training), ("place", Place)]
        kind = make_dataclass("Options", parts)
        options = tyro.cli(
            kind,
            default=kind(row.config, Training(**row.training), Place()),
            prog=f"fewstep train {row.name}",
            description=row.summary,
            args=words[1:],
            config=(tyro.conf.OmitArgPrefixes,),
        )
        experiment, training, place = options.experiment, options.training, options.place
        folder = place.run or Path("runs") / f"{row.name}-seed{training.seed}"
        run = Run.create(row.name, experiment, training, folder)
    run.train()
    print(f"Trained {run.name} for {run.iterations():,} iterations: {run.folder.path}")
    print(f"Test it with: fewstep evaluate {run.folder.path}")


def evaluate(options: Evaluate) -> None:
    """``fewstep evaluate``"""
    run = Run(options.run, options.device, options.threads)
    found = run.evaluate(
        options.tasks, options.steps, options.seed, options.checkpoint, options.shots, options.queries, options.norm,
        options.episodes, options.goals,
    )  # fmt: skip
    metric, paper, others = found["metric"], EXPERIMENTS[run.name].paper, found.get("other_norms", {})
    columns = [found, *others.values()]
    own = f", {run.experiment.norm} norms" if others else ""
    header = ["gradient steps", f"{metric} ± 95% CI{own}", *(f"{norm} norms" for norm in others), "paper"]
    rows = [
        [
            str(step),
            *(format_metric(metric, column["mean"][step], column["ci95"][step]) for column in columns),
            format_metric(metric, paper[step]) if step in paper else "",
        ]
        for step in range(found["steps"] + 1)
    ]
    what = f"{found['tasks']} test tasks, {_examples(run, found['queries'], found['config'])}"
    print_table(f"{_checkpoint_of(run, found)}; {what}", header, rows)
    for shots, other in found.get("other_shots", {}).items():
        number = format_metric(metric, other["mean"][-1], other["ci95"][-1])
        print(f"with {shots} shots: {number} after {found['steps']} steps")
    print(f"Wrote {run.folder.results_file}")


def analyse(options: Analyse) -> None:
    """``fewstep analyse``"""
    from fewstep.experiments import analysis

    run = Run(options.run, options.device, options.threads)
    found = analysis.analyse(run, options.tasks, options.steps, options.queries, options.seed, options.checkpoint)
    metric, similarity, frozen = found["metric"], found["similarity"], found["freezing"]
    print(f"{_checkpoint_of(run, found)}; {found['tasks']} test tasks, {found['steps']} inner steps\n")
    layers = [
        [layer, *(f"{of['mean'][place]:.3f} ± {of['ci95'][place]:.3f}" for of in similarity.values())]
        for place, layer in enumerate(similarity["CKA"]["names"])
    ]
    title = f"Features before against after adaptation, {_examples(run, found['queries_of_similarity'])}"
    print_table(title, ["layer", *similarity], layers)
    numbers = [format_metric(metric, *of) for of in zip(frozen["mean"], frozen["ci95"], strict=True)]
    names = ["none", *(f"up to {name}" for name in frozen["names"][1:])]
    rows = [[name, number] for name, number in zip(names, numbers, strict=True)]
    if found["nil"] is not None:
        rows.append(
            ["NIL: no head, nothing adapted", format_metric(metric, found["nil"]["mean"], found["nil"]["ci95"])]
        )
    title = f"With blocks frozen at test, {_examples(run, found['queries'])}"
    print_table(title, ["blocks not adapted", f"{metric} ± 95% CI"], rows)
    if len(frozen["names"]) == 1:
        print("No block is adapted by this method, so there is none to freeze.")
    for file in found["files"]:
        print(f"Wrote {file}")


def _checkpoint_of(run: Run, found: dict[str, Any]) -> str:
    planned = run.experiment.iterations
    trained = f"{found['iterations']:,}" + (f" of {planned:,}" if found["iterations"] < planned else "")
    return (
        f"{run.name}, seed {found['seed']}, {found['checkpoint']} checkpoint "
        f"(iteration {found['checkpoint_iteration']:,}; trained for {trained})"
    )


def _examples(run: Run, queries: int | None, config: dict[str, Any] | None = None) -> str:
    if queries is None:
        tested = config or {}
        of_paper = ", the authors' goals" if tested.get("test_goals") == "paper" else ""
        return f"{tested.get('test_episodes') or run.experiment.shots} episodes a step{of_paper}"
    each = " of each class" if hasattr(run.experiment, "ways") else ""
    return f"{queries} query example{'s' * (queries != 1)}{each}"


def plot(options: Plot) -> None:
    """``fewstep plot``"""
    run = Run(options.run, options.device, options.threads)
    for file in run.plot():
        print(f"Wrote {file}")
    if not run.folder.results_file.is_file():
        print(f"For results over inner steps: fewstep evaluate {run.folder.path}, then plot again.")


def _reproduce(options: Reproduce, began: float) -> None:
    from fewstep.reproduce_command import reproduce

    reproduce(options, began)


def data(words: list[str]) -> None:
    """``fewstep data``"""
    from fewstep import datasets
    from fewstep.datasets.catalogue import catalogue
    from fewstep.datasets.download import download_omniglot

    if words and words[0] == "download":
        options = _parse(Download, "data download", words[1:])
        for line in download_omniglot(options.root or datasets.data_root()):
            print(line)
    elif words and words[0] in ("-h", "--help"):
        print("usage: fewstep data\n       fewstep data download omniglot [--root PATH]\n")
        print("Show the data sets and what of them is here, or fetch Omniglot's official files.")
    elif words:
        raise ValueError(
            f"there is no `data {words[0]}`; there are `fewstep data` and `fewstep data download omniglot`."
        )
    else:
        root = datasets.data_root()
        header = ["data set", "classes: train, validation, test", "images", "here", "where from"]
        print_table(f"Data sets in {root.resolve()} (FEWSTEP_DATA names another folder)", header, catalogue(root))
        print("Your own images: fewstep.datasets.from_folder and from_dataset.")


def demo(options: Demo) -> None:
    """``fewstep demo``"""
    from fewstep.figures.learning_curves import plot_learning_curve
    from fewstep.figures.sinusoids import plot_fits

    if options.run.exists():
        if any(options.run.iterdir()) and not (options.run / "maml").exists():
            raise FileExistsError(f"{options.run} holds something else than a demo; name another folder with --run.")
        shutil.rmtree(options.run)
    runs, table = {}, []
    for title, name in {"MAML": "sinusoid-10shot-maml", "pretrained": "sinusoid-10shot-pretrained"}.items():
        config = replace(find(name).config, iterations=options.iterations)
        runs[title] = Run.create(name, config, Training(compile=options.compile), options.run / title.lower())
        runs[title].train()
        found = runs[title].evaluate()
        table.append([title, *(f"{found['mean'][k]:.3f} ± {found['ci95'][k]:.3f}" for k in (0, 1, 5, 10))])
    header = ["", "before", "1 step", "5 steps", "10 steps"]
    print_table("Mean squared error on new sine waves from 10 points, 600 tasks, ± 95% CI", header, table)
    learners = {title: run.load_learner() for title, run in runs.items()}
    files = [
        plot_fits(learners, options.run / "figure-2.png"),
        plot_learning_curve(
            {title: run.folder.metrics() for title, run in runs.items()}, options.run / "learning-curve.png", "mse"
        ),
        *(run.folder.results_file for run in runs.values()),
    ]
    for file in files:
        print(f"Wrote {file}")


def _parse(kind: Any, command: str, words: list[str]) -> Any:
    return tyro.cli(kind, prog=f"fewstep {command}", args=words)


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Prints a table, its first column in full."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    print(title)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)
