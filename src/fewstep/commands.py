"""The commands: list, train, evaluate, analyse, plot, reproduce, data, demo."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import make_dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from fewstep.command_options import Analyse, Demo, Download, Evaluate, List, Place, Plot, Reproduce, Train
from fewstep.evaluation.numbers import written
from fewstep.experiments.experiment import Training
from fewstep.experiments.runs import EXPERIMENTS, Run, find

if TYPE_CHECKING:
    from fewstep.experiments.plan import Planned


def dispatch(command: str, words: list[str]) -> None:
    """Runs a command with the words that follow it."""
    commands: dict[str, Callable[[list[str]], None]] = {
        "list": lambda words: list_experiments(_parse(List, "list", words)),
        "train": train,
        "evaluate": lambda words: evaluate(_parse(Evaluate, "evaluate", words)),
        "analyse": lambda words: analyse(_parse(Analyse, "analyse", words)),
        "plot": lambda words: plot(_parse(Plot, "plot", words)),
        "reproduce": lambda words: reproduce(_parse(Reproduce, "reproduce", words)),
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
        paper = ", ".join(f"{written(metric, value)} after {k}" for k, value in row.paper.items())
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
        options.tasks, options.steps, options.seed, options.checkpoint, options.shots, options.queries, options.norm
    )
    metric, paper, others = found["metric"], EXPERIMENTS[run.name].paper, found.get("other_norms", {})
    columns = [found, *others.values()]
    own = f", {run.experiment.norm} norms" if others else ""
    header = ["gradient steps", f"{metric} ± 95% CI{own}", *(f"{norm} norms" for norm in others), "paper"]
    rows = [
        [
            str(step),
            *(written(metric, column["mean"][step], column["ci95"][step]) for column in columns),
            written(metric, paper[step]) if step in paper else "",
        ]
        for step in range(found["steps"] + 1)
    ]
    what = f"{found['tasks']} test tasks, {_examples(run, found['queries'])}"
    _print_table(f"{_checkpoint_of(run, found)}; {what}", header, rows)
    for shots, other in found.get("other_shots", {}).items():
        number = written(metric, other["mean"][-1], other["ci95"][-1])
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
    _print_table(title, ["layer", *similarity], layers)
    numbers = [written(metric, *of) for of in zip(frozen["mean"], frozen["ci95"], strict=True)]
    names = ["none", *(f"up to {name}" for name in frozen["names"][1:])]
    rows = [[name, number] for name, number in zip(names, numbers, strict=True)]
    if found["nil"] is not None:
        rows.append(["NIL: no head, nothing adapted", written(metric, found["nil"]["mean"], found["nil"]["ci95"])])
    title = f"With blocks frozen at test, {_examples(run, found['queries'])}"
    _print_table(title, ["blocks not adapted", f"{metric} ± 95% CI"], rows)
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


def _examples(run: Run, queries: int | None) -> str:
    if queries is None:
        return f"{run.experiment.shots} episodes a step"
    each = " of each class" if hasattr(run.experiment, "ways") else ""
    return f"{queries} query example{'s' * (queries != 1)}{each}"


def plot(options: Plot) -> None:
    """``fewstep plot``"""
    run = Run(options.run, options.device, options.threads)
    for file in run.plot():
        print(f"Wrote {file}")
    if not run.folder.results_file.is_file():
        print(f"For results over inner steps: fewstep evaluate {run.folder.path}, then plot again.")


def reproduce(options: Reproduce) -> None:
    """``fewstep reproduce``"""
    from fewstep.experiments.plan import plan, rows_of
    from fewstep.experiments.reproduce import reproduce
    from fewstep.experiments.reproduction_figures import figures_of
    from fewstep.experiments.results import TABLES, load_results
    from fewstep.experiments.tables import page, tables_of

    if options.table not in TABLES:
        raise ValueError(f"there is no table {options.table!r}; there are: {', '.join(TABLES)}.")
    results = options.results or options.runs / "results"
    planned: list[Planned] = []
    failures: dict[str, Exception] = {}
    if options.train or options.dry_run:
        rows = rows_of(options.table, options.rows)
        training = Training(device=options.device, threads=options.threads, compile=options.compile)
        training.check()
        planned = plan(rows, options.seeds, options.runs, results, options.iterations, options.budget)
        _print_plan(planned, training)
        if options.dry_run:
            return
        failures = reproduce(planned, results, training)
    found = load_results(results, options.table)
    if found:
        tables = tables_of(options.table, found)
        for title, table in tables.items():
            _print_table(title, table[0], table[1:])
        (results / "table.md").write_text(page(tables))
        for file in (results / "table.md", *figures_of(options.table, found, results, results)):
            print(f"Wrote {file}")
    if failures:
        reasons = "".join(f"\n  {name}: {error}" for name, error in failures.items())
        raise RuntimeError(f"{len(failures)} of {len(planned)} runs failed:{reasons}")
    if not found:
        raise ValueError(f"there are no results of {options.table} in {results}; leave out --no-train to make them.")


def _print_plan(planned: Sequence[Planned], training: Training) -> None:
    from fewstep.experiments.plan import seconds_left
    from fewstep.training.progress import duration

    if not planned:
        print("All that was asked for is there.")
        return
    rows, total = [], 0.0
    for one in planned:
        seconds = seconds_left(one, training)
        total += seconds or 0.0
        own = one.row.config.iterations
        goal = f"{one.iterations:,}" + (f" of {own:,}" if one.iterations < own else "")
        rows.append([one.name, goal, f"{one.done:,}", "?" if seconds is None else duration(seconds)])
    known = len([row for row in rows if row[-1] != "?"])
    title = f"{len(planned)} run{'s' * (len(planned) > 1)} to train and test"
    if known:
        of_them = "" if known == len(planned) else f" {known} of them"
        title += f"; training{of_them} takes about {duration(total)} on this machine as it is now"
    _print_table(title, ["run", "iterations", "done", "training takes"], rows)


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
        _print_table(f"Data sets in {root.resolve()} (FEWSTEP_DATA names another folder)", header, catalogue(root))
        print("Your own images: fewstep.datasets.from_folder and from_dataset.")


def demo(options: Demo) -> None:
    """``fewstep demo``"""
    from fewstep.evaluation.figures import plot_learning_curve
    from fewstep.evaluation.sinusoid_figures import plot_fits

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
    _print_table("Mean squared error on new sine waves from 10 points, 600 tasks, ± 95% CI", header, table)
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


def _print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
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
