"""A table of the public interface: callables with good arguments, and bad values for some of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import fewstep as fs
from fewstep import baselines, datasets, evaluation, models, rl, tasks
from fewstep.rl import environments

NAN, INF = float("nan"), float("inf")
COUNT = (0, -1, 1.5, "3", NAN)
"""Bad values of a whole number of at least 1."""
NUMBER = (-1, 1.5, "3")
"""Bad values of a whole number of at least 0."""
RATE = (-0.1, NAN, INF, "0.1")
"""Bad values of a number of at least 0."""
POSITIVE = (0.0, *RATE)
SHARE = (-0.1, 1.5, NAN, "0.5")
"""Bad values of a number from 0 to 1."""


@dataclass(frozen=True)
class Entry:
    """A callable with arguments that work, and bad values for some of them."""

    call: Callable[..., Any]
    good: dict[str, Any]
    bad: dict[str, tuple[Any, ...]]


def linear() -> nn.Module:
    return nn.Linear(1, 1)


def features() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4))


@functools.cache
def learner() -> Any:
    made = fs.maml(linear(), fs.mse, inner_lr=0.01)
    made.meta_loss(sine().sample(2))  # the number of axes of its first tasks cannot be known
    return made


@functools.cache
def classifier() -> Any:
    return fs.anil(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), fs.cross_entropy, 0.1, head="2.*")


@functools.cache
def images() -> Any:
    return datasets.LabelledImages(torch.rand(24, 4), torch.arange(0, 25, 6), ["a", "b", "c", "d"])


@functools.cache
def episodes() -> Any:
    return tasks.Episodes(images(), ways=2, shots=1, queries=2)


@functools.cache
def sine() -> Any:
    return tasks.Sinusoids(shots=3, queries=3)


@functools.cache
def rollouts() -> Any:
    return rl.Rollouts(environments.PointNavigation(num_envs=4), episodes=2, horizon=3)


@functools.cache
def policy_learner() -> Any:
    return rl.MetaPolicy(rl.GaussianPolicy(2, 2, [4]), rollouts(), rule=fs.SGD(0.1))


def fitted(**options: Any) -> Any:
    if options.get("learner") is None:
        options["learner"] = fs.maml(linear(), fs.mse, inner_lr=0.01)
    return fs.fit(**options)


class IgnoresGenerator:
    def sample(self, n: int, generator: Any = None) -> Any:
        return sine().sample(n)


class Broken:
    """A source whose tasks are not what they should be."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change = change

    def sample(self, n: int, generator: Any = None) -> Any:
        return self.change(sine().sample(n, generator))


def without_task_axis(batch: Any) -> Any:
    return batch[0]


def with_another_axis(batch: Any) -> Any:
    return fs.Task(batch.support[None], batch.query[None])


def one_task() -> Any:
    return sine().sample(1)[0]


def pairs(size: int = 6) -> list[Any]:
    return [(torch.rand(size, 1), torch.rand(size, 1)) for _ in range(3)]


def rules() -> Iterator[Entry]:
    params = {"w": torch.zeros(2)}
    yield Entry(fs.SGD, {"lr": 0.1, "momentum": 0.9}, {
        "lr": (*POSITIVE, torch.ones(2), None, fs.LearnedRate), "momentum": RATE, "dampening": RATE,
        "weight_decay": RATE, "nesterov": ("yes", 3),
    })  # fmt: skip
    betas = ((0.9,), (0.9, 1.0), (-0.1, 0.9), (0.9, NAN), 0.9, "ab")
    yield Entry(fs.Adam, {"lr": 0.1}, {
        "lr": POSITIVE, "betas": betas, "eps": RATE, "weight_decay": RATE, "amsgrad": ("yes",),
    })  # fmt: skip
    yield Entry(fs.AdamW, {"lr": 0.1}, {"lr": (-0.1,), "betas": ((0.9, 2.0), 0.9), "weight_decay": (-0.1,)})
    yield Entry(fs.RMSprop, {"lr": 0.1}, {
        "lr": (0.0, NAN), "alpha": SHARE, "eps": (-1.0,), "momentum": (-0.1,), "centered": ("yes",),
    })  # fmt: skip
    yield Entry(fs.Adagrad, {"lr": 0.1}, {
        "lr": (0.0, NAN), "lr_decay": (-0.1, NAN), "initial_accumulator_value": (-1.0, "a"),
    })  # fmt: skip
    yield Entry(fs.Adadelta, {}, {"lr": (0.0,), "rho": SHARE, "eps": (-1.0, NAN)})
    yield Entry(fs.CarriedAdam, {"params": params, "lr": 0.1}, {
        "params": (None, 3, {}, [1, 2]), "lr": (-0.1,), "betas": ((0.9, 1.5), 3),
    })  # fmt: skip
    yield Entry(fs.LearnedRate, {"initial": 0.1}, {"initial": (NAN, INF, "a", None), "positive": ("yes",)})
    yield Entry(fs.LearnedRates, {"params": params, "lr": 0.1, "per": "tensor"}, {
        "params": (None, 3, {}, ["w"]), "lr": (-0.1, NAN, "a"), "per": ("entry", None), "steps": COUNT,
        "positive": ("yes",),
    })  # fmt: skip
    yield Entry(fs.MetaLSTM, {"hidden": 4}, {
        "hidden": COUNT, "forget_bias": ((5.0, 4.0), (1.0,), 3.0, (NAN, 1.0)), "generator": (3,),
    })  # fmt: skip
    yield Entry(fs.PerParameter, {"rules": {"*": fs.SGD(0.1)}}, {"rules": (None, {}, {"*": 0.1}, [fs.SGD(0.1)])})
    yield Entry(lambda part: fs.chain(part, fs.SGD(0.1)), {"part": fs.clip_by_norm(1.0)}, {
        "part": (None, 0.1, fs.clip_by_norm),
    })  # fmt: skip
    for transform in (fs.clip_by_norm, fs.clip_by_value):
        yield Entry(lambda rate, transform=transform: transform(rate), {"rate": 1.0}, {"rate": (0.0, -1.0, NAN, "1")})
    for transform in (fs.decay_weights, fs.scale_by):
        yield Entry(lambda rate, transform=transform: transform(rate), {"rate": 1.0}, {"rate": (-1.0, NAN, None)})


def choices() -> Iterator[Entry]:
    yield Entry(fs.Recomputed, {}, {"mode": ("backward", None, 3)})
    yield Entry(fs.Truncated, {"last": 1}, {"last": NUMBER})
    yield Entry(fs.Implicit, {}, {"regularization": POSITIVE, "cg_steps": COUNT, "damping": RATE})
    yield Entry(fs.multi_step_loss, {"weights": [0.5, 0.5]}, {"weights": ([], [NAN], ["a"], 3, "ab")})
    yield Entry(fs.Scheduled, {"choice": lambda i: fs.Unrolled()}, {"choice": (None, fs.Unrolled())})
    yield Entry(fs.supervised, {"loss": nn.functional.mse_loss}, {"loss": (None, 3)})
    yield Entry(fs.array_metric, {"function": np.mean}, {"function": (None, 3), "predict": (3,)})
    yield Entry(fs.MetaLearner, {"model": linear(), "loss": fs.mse, "rule": fs.SGD(0.1), "steps": 1}, {
        "model": (None, linear, nn.Linear, nn.BatchNorm1d(1)),
        "loss": (None, nn.MSELoss(), nn.functional.mse_loss, 3, fs.supervised),
        "rule": (None, 0.1, fs.SGD, torch.optim.SGD),
        "steps": (*NUMBER, None),
        "adapts": ("head.*", 3, [], [3]), "learns": ("head.*", 3),
        "adjoint": (None, "unrolled", fs.Unrolled), "objective": (None, "query", fs.multi_step_loss),
        "inner_loss": (3, nn.MSELoss()), "inner_batch": COUNT, "vectorize": ("yes", 3), "chunk": COUNT,
        "compile": ("yes", 3),
    })  # fmt: skip
    common: dict[str, Any] = {"model": linear(), "loss": fs.mse, "inner_lr": 0.01}
    rates = {"inner_lr": (-0.1, NAN, "0.1", None), "steps": (-1, 1.5)}
    yield Entry(fs.maml, common, {**rates, "model": (3,), "loss": (3,)})
    yield Entry(fs.meta_sgd, common, {**rates, "model": (3,)})
    yield Entry(fs.anil, {**common, "head": "weight"}, {"head": ("head", 3, []), "inner_lr": (-1.0,)})
    yield Entry(fs.boil, {**common, "head": "weight"}, {"head": ("head",)})
    yield Entry(fs.cavia, {**common, "context": "bias"}, {"context": ("context", 3)})
    yield Entry(fs.imaml, common, {"regularization": (0.0, "1"), "cg_steps": COUNT, "damping": (-1.0,)})
    yield Entry(fs.maml_plus_plus, common, {
        "iterations_per_epoch": COUNT, "multi_step_epochs": NUMBER, "first_order_epochs": NUMBER,
    })  # fmt: skip
    yield Entry(fs.meta_lstm, {"model": linear(), "loss": fs.mse}, {"hidden": COUNT, "steps": (-1,)})
    yield Entry(fs.reptile, {"model": linear(), "loss": fs.mse, "rule": fs.SGD(0.1)}, {
        "rule": (0.1, None), "steps": (0, -1), "inner_batch": (0,),
    })  # fmt: skip
    theta = {"w": torch.tensor(1.0)}
    square = {"loss": lambda p, x: (p["w"] * x).square(), "params": theta, "batch": torch.tensor(1.0)}
    yield Entry(fs.adapt, {**square, "rule": fs.SGD(0.1), "steps": 1}, {
        "loss": (None,), "params": (None, 3, {"w": 1.0}), "rule": (None, 0.1, fs.SGD), "steps": NUMBER,
        "adjoint": (None, fs.Unrolled), "adapts": (["v"], 3, []),
    })  # fmt: skip


def learning() -> Iterator[Entry]:
    batch = sine().sample(2)
    numpy = fs.Task(fs.Batch(np.zeros((2, 3, 1)), np.zeros((2, 3, 1))), batch.query)
    longer = fs.Task(fs.Batch(torch.zeros(2, 3, 1), torch.zeros(2, 2, 1)), batch.query)
    wide = fs.Task(fs.Batch(torch.zeros(2, 3, 2), torch.zeros(2, 3, 1)), batch.query)
    weights = fs.Task(fs.Batch(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1), torch.ones(2, 4)), batch.query)
    wrong_tasks = (
        None, [], "tasks", batch.support, batch.support.x, numpy, longer, wide, weights, batch[0],
        with_another_axis(batch),
    )  # fmt: skip
    yield Entry(lambda tasks: learner().meta_loss(tasks), {"tasks": batch}, {"tasks": wrong_tasks})
    yield Entry(lambda **given: learner().score(**given), {"tasks": batch}, {
        "tasks": (None, batch[0]), "metric": (3, nn.MSELoss(), lambda model, batch: batch.x), "steps": NUMBER,
    })  # fmt: skip
    yield Entry(lambda **given: learner().adapt(**given), {"support": batch[0].support}, {
        "support": (None, 3, batch[0], batch.support, torch.zeros(0, 1)), "steps": NUMBER,
    })  # fmt: skip
    yield Entry(learner().adapting, {"adapts": "weight"}, {"adapts": ("head", 3)})
    fitting = {"learner": None, "source": sine(), "iterations": 1, "meta_batch": 2, "progress": False}
    strange = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    broken = (IgnoresGenerator(), Broken(without_task_axis), Broken(with_another_axis))
    yield Entry(fitted, fitting, {
        "learner": (3, linear(), fs.maml), "source": (None, 3, batch, tasks.Sinusoids, *broken),
        "optimizer": (3, strange, torch.optim.Adam),
        "iterations": (*COUNT, None), "meta_batch": COUNT, "seed": ("a", 1.5, None), "scheduler": (3,),
        "clip_value": POSITIVE, "clip_norm": POSITIVE, "validation": (3,), "validate_every": (0, 5),
        "num_validation_tasks": (5,), "validation_steps": (1,), "metric": (fs.mse,), "maximize": (True,),
        "run": (3, Path(__file__)), "resume": (True,), "deadline": ("soon", NAN), "log_every": COUNT,
        "checkpoint_every": COUNT
    })  # fmt: skip
    validating = {**fitting, "validation": sine(), "num_validation_tasks": 2}
    yield Entry(fitted, validating, {
        "validate_every": COUNT, "num_validation_tasks": COUNT, "validation_steps": NUMBER, "metric": (3, nn.MSELoss()),
        "maximize": ("yes",), "validation": (IgnoresGenerator(),),
    })  # fmt: skip
    yield Entry(fs.load, {"run": None, "learner": None}, {"run": (3, "no such folder"), "which": ("newest",)})


def evaluating() -> Iterator[Entry]:
    batch = sine().sample(2)
    yield Entry(fs.evaluate, {"learner": learner(), "source": sine(), "num_tasks": 2}, {
        "learner": (3, linear()), "source": (None, batch, IgnoresGenerator(), Broken(without_task_axis)),
        "num_tasks": COUNT, "steps": NUMBER, "metric": (3, nn.MSELoss()), "seed": ("a", 1.5, None), "stream": ("a",),
        "meta_batch": COUNT,
    })  # fmt: skip
    yield Entry(fs.check_gradients, {"learner": learner(), "tasks": batch, "directions": 1}, {
        "learner": (3, linear()), "tasks": (None, batch[0]), "directions": COUNT, "tolerance": POSITIVE,
        "distance": (0.0, -1.0, NAN),
    })  # fmt: skip
    measured = {"learner": classifier(), "source": episodes(), "num_tasks": 2}
    yield Entry(evaluation.freezing, measured, {
        "num_tasks": (0, 1.5), "steps": (-1,), "blocks": (3, {"a": "no such"}), "meta_batch": (0,), "learner": (3,),
    })  # fmt: skip
    yield Entry(evaluation.layer_similarity, measured, {
        "num_tasks": (0,), "layers": (["no such"], [], 3), "source": (3,), "similarities": ({}, 3),
    })  # fmt: skip
    yield Entry(
        evaluation.nil, {**measured, "features": lambda model, x: x}, {"features": (None, 3), "num_tasks": (0,)}
    )
    yield Entry(evaluation.cka, {"a": torch.rand(5, 3), "b": torch.rand(5, 4)}, {
        "a": (torch.rand(6, 3), torch.rand(5), "a"), "b": (torch.zeros(4, 3),),
    })  # fmt: skip
    yield Entry(evaluation.cca, {"a": torch.rand(9, 2), "b": torch.rand(9, 2)}, {
        "a": (torch.rand(8, 3), torch.rand(9)), "variance": (0.0, 1.5, NAN),
    })  # fmt: skip
    yield Entry(evaluation.blocks_of, {"model": linear()}, {"model": (None, 3)})


def sources() -> Iterator[Entry]:
    ranges = ((5.0, 1.0), (1.0,), "ab", 3.0, (NAN, 1.0), (0.0, INF))
    yield Entry(tasks.Sinusoids, {}, {
        "shots": COUNT, "queries": COUNT, "amplitude": ranges, "phase": ((2.0, 1.0),), "x_range": ranges[:2],
        "support_range": ranges[:2],
    })  # fmt: skip
    drawn = {"n": COUNT, "generator": (3,)}
    yield Entry(lambda **given: sine().sample(**given), {"n": 2}, drawn)
    yield Entry(lambda **given: tasks.SinusoidPool(**given), {"sinusoids": sine()}, {
        "count": COUNT, "sinusoids": (None,), "seed": ("a",),
    })  # fmt: skip
    yield Entry(tasks.SinusoidPool(sine(), 3).sample, {"n": 3}, {"n": (2, 0)})
    yield Entry(tasks.Episodes, {"dataset": images(), "ways": 2, "shots": 1, "queries": 1}, {
        "ways": (1, 9, *COUNT), "shots": (9, *COUNT), "queries": (9, *COUNT), "dataset": (None, [1, 2]),
        "rotations": (True,),
    })  # fmt: skip
    yield Entry(lambda **given: episodes().sample(**given), {"n": 2}, drawn)
    data = pairs()
    yield Entry(tasks.TaskList, {"data": data, "shots": 2}, {
        "shots": (9, *COUNT), "queries": (9, *COUNT), "data": (
            [], None, 3, "ab", {"a": data[0]}, [1], [data[0][0]], [(torch.rand(3, 1), torch.rand(2, 1))],
            [("a", "b")], [(torch.tensor(1.0), torch.tensor(1.0))], [(None, None)],
            [*data, (torch.rand(6, 2), torch.rand(6, 1))],
        ),
    })  # fmt: skip
    yield Entry(tasks.TaskList(data, 2).sample, {"n": 2}, drawn)
    yield Entry(fs.Task.stack, {"tasks": [one_task()]}, {
        "tasks": ([], [1], 3, None, [one_task(), 3], [one_task(), classifier_task()]),
    })  # fmt: skip
    yield Entry(tasks.generator, {"seed": 0, "iteration": 0}, {"seed": ("a", 1.5, None), "iteration": ("a", -1)})
    yield Entry(baselines.ClassBatches, {"dataset": images(), "size": 2}, {"size": COUNT, "dataset": (None, 3)})


def classifier_task() -> Any:
    return episodes().sample(1)[0]


def data() -> Iterator[Entry]:
    yield Entry(datasets.LabelledImages, {
        "images": torch.zeros(4, 1), "starts": torch.tensor([0, 2, 4]), "classes": ["a", "b"],
    }, {
        "images": (None, np.zeros(4)), "starts": (None, [0, 2, 4], torch.tensor([0, 4]), torch.tensor([0, 4, 4])),
        "classes": (["a"], None),
    })  # fmt: skip
    yield Entry(images().select, {"classes": ["a"]}, {"classes": ([], ["z"], [9], ["a", "a"], 3, [-1])})
    yield Entry(images().split, {"sizes": [2, 2]}, {"sizes": ([1], [4, 0], [5, -1], "ab", 4, [1.5, 2.5])})
    yield Entry(datasets.from_arrays, {"x": np.zeros((4, 2)), "y": [0, 0, 1, 1]}, {
        "x": (np.zeros(3), None, "ab", [["a"]] * 4), "y": ([0], [0.5] * 4, [[0]] * 4, None), "classes": (["a"], 3),
    })  # fmt: skip
    shades = [(np.zeros((4, 4), np.uint8), 0), (np.zeros((4, 4), np.uint8), 1)]
    yield Entry(datasets.from_dataset, {"dataset": shades, "channels": 1}, {
        "dataset": (
            [], None, 3, [1], [(np.zeros(3), 0)], [(np.zeros((4, 4)) + 9, 0)], [(shades[0][0], 1.5)], [{"a": 1}],
        ),
        "size": COUNT, "channels": (2, 0, "1"),
    })  # fmt: skip
    yield Entry(lambda **given: datasets.from_folder(**given), {"root": None, "size": 4}, {
        "root": ("no such folder", Path(__file__), 3), "size": COUNT, "channels": (2, "3"),
    })  # fmt: skip
    yield Entry(datasets.glyphs, {"split": "test"}, {"split": ("tests", None, 3, ["test"])})
    for load in (datasets.omniglot, datasets.mini_imagenet, datasets.cifar_fs, datasets.fc100):
        yield Entry(load, {"root": None, "split": "train"}, {
            "root": ("no such folder", 3), "split": ("training", ["train"]),
        })  # fmt: skip
    yield Entry(datasets.omniglot, {"root": ".", "split": "train"}, {"size": COUNT})


def networks() -> Iterator[Entry]:
    yield Entry(models.MLP, {"inputs": 1, "hidden": [4], "outputs": 1}, {
        "inputs": COUNT, "hidden": ([0], [1.5], 3, "ab"), "outputs": COUNT, "activation": (None, nn.ReLU()),
        "weight_std": (-1.0, NAN, "a"),
    })  # fmt: skip
    yield Entry(models.Conv4, {"in_channels": 1, "ways": 2, "filters": 2}, {
        "in_channels": COUNT, "ways": COUNT, "filters": COUNT, "image_size": (8, *COUNT), "norm": (None, "batch"),
        "activation": (None,),
    })  # fmt: skip
    yield Entry(models.Conv4.omniglot, {"ways": 2, "filters": 2}, {"ways": (0,), "norm": ("batches",), "steps": (0,)})
    yield Entry(models.FullyConnected, {"inputs": 4, "ways": 2, "hidden": [4]}, {
        "inputs": (0, "a"), "ways": (0, 1.5), "hidden": ([], [0], 3), "norm": ("batch",),
    })  # fmt: skip
    yield Entry(models.ResNet12, {"in_channels": 1, "ways": 2, "widths": (2, 2, 2, 2)}, {
        "in_channels": (0,), "ways": (0,), "widths": ((2, 2), (0, 2, 2, 2), 3), "image_size": (8, 0),
    })  # fmt: skip
    norms = {"channels": COUNT, "eps": (-1.0, NAN, "a")}
    yield Entry(models.BatchNorm, {"channels": 2}, norms)
    yield Entry(models.SupportNorm, {"channels": 2}, {"channels": (0, "2"), "eps": (-1.0,)})
    yield Entry(models.RunningNorm, {"channels": 2}, {"channels": (0,), "momentum": SHARE})
    yield Entry(models.PerStepNorm, {"channels": 2, "steps": 2}, {"channels": (0,), "steps": COUNT, "eps": (-1.0,)})
    yield Entry(models.norm_layer, {"policy": "batch"}, {
        "policy": ("batches", None, 3), "eps": (-1.0, "a"), "steps": (0, 1.5),
    })  # fmt: skip
    yield Entry(
        models.ContextChannel, {"network": linear(), "image_size": 4}, {"network": (None,), "image_size": COUNT}
    )
    yield Entry(models.ContextConv4, {"network": models.Conv4(1, 2, 2), "filters": 2}, {
        "network": (None, linear()), "filters": COUNT, "size": COUNT,
    })  # fmt: skip
    yield Entry(models.Function, {"function": len, "params": {"w": torch.zeros(2)}}, {
        "function": (None, 3), "params": (None, 3, {}, {"w": 1.0}),
    })  # fmt: skip


def classifiers() -> Iterator[Entry]:
    common = {"encoder": features(), "ways": 2}
    wrong: dict[str, tuple[Any, ...]] = {"encoder": (None, 3), "ways": (1, *COUNT)}
    yield Entry(baselines.PrototypicalNetwork, common, {**wrong, "distance": ("manhattan", None)})
    yield Entry(baselines.NearestNeighbour, common, {"ways": (1, 1.5), "distance": ("manhattan",)})
    yield Entry(baselines.MatchingNetwork, common, {"context": (3,), "ways": (0,)})
    yield Entry(baselines.SiameseNetwork, {**common, "features": 4}, {"features": COUNT})
    yield Entry(baselines.MANN, {**common, "features": 4, "hidden": 4}, {
        "features": COUNT, "hidden": COUNT, "memory": (3,), "ways": (1,),
    })  # fmt: skip
    yield Entry(baselines.LRUMemory, {}, {"slots": (2, *COUNT), "width": COUNT, "heads": COUNT, "decay": SHARE})
    yield Entry(baselines.FullContext, {"features": 4}, {"features": COUNT, "steps": COUNT})
    yield Entry(baselines.RelationModule, {"channels": 2, "size": 5}, {
        "channels": COUNT, "size": (1, *COUNT), "padding": NUMBER, "hidden": COUNT,
    })  # fmt: skip
    yield Entry(baselines.RelationNetwork, {**common, "relation": linear()}, {"relation": (None,), "ways": (1,)})
    yield Entry(baselines.FineTuned, {**common, "head": nn.Linear(4, 2), "rule": fs.SGD(0.1)}, {
        "head": (None,), "rule": (0.1,), "steps": NUMBER, "ways": (1,),
    })  # fmt: skip
    yield Entry(baselines.CosineHead, {"features": 4, "classes": 2}, {
        "features": COUNT, "classes": COUNT, "scale": (0.0, -1.0, NAN, "a"),
    })  # fmt: skip
    yield Entry(baselines.PretrainedClassifier, {
        "few_shot": baselines.NearestNeighbour(**common), "head": nn.Linear(4, 3), "classes": 3,
    }, {"few_shot": (None, 3), "head": (None, 3), "classes": (1, *COUNT)})  # fmt: skip
    yield Entry(baselines.MultiTask, {"model": linear(), "loss": fs.mse, "count": 2, "rule": fs.SGD(0.1)}, {
        "model": (None,), "loss": (None,), "count": COUNT, "rule": (0.1,), "weight": RATE, "regularizer": (None, 3),
    })  # fmt: skip
    yield Entry(baselines.pretrained, {"model": linear(), "loss": fs.mse, "fine_tuning_lr": 0.1}, {
        "fine_tuning_lr": (-0.1, "a"), "model": (3,),
    })  # fmt: skip
    prototypes = baselines.PrototypicalNetwork(**common)
    batch = episodes().sample(2)
    far = fs.Task(fs.Batch(batch.support.x, batch.support.y + 5), batch.query)
    yield Entry(prototypes.meta_loss, {"tasks": batch}, {"tasks": (None, batch[0], with_another_axis(batch), far)})
    yield Entry(prototypes.adapt, {"support": batch[0].support}, {
        "support": (None, batch[0], batch.support), "steps": (1, -1, 1.5),
    })  # fmt: skip
    yield Entry(prototypes.score, {"tasks": batch}, {"tasks": (3,), "metric": (3, nn.MSELoss()), "steps": (2,)})


def policies() -> Iterator[Entry]:
    yield Entry(environments.PointNavigation, {"num_envs": 2}, {
        "num_envs": COUNT, "reward": ("squared",), "horizon": COUNT,
    })  # fmt: skip
    environment = rollouts().environment
    yield Entry(rl.Rollouts, {"environment": environment}, {
        "environment": (None, 3), "episodes": COUNT, "horizon": COUNT, "discount": SHARE, "gae_lambda": SHARE,
        "baseline": (3,),
    })  # fmt: skip
    yield Entry(rl.EnvironmentTasks, {"environment": environment}, {
        "environment": (None, 3), "episodes": COUNT, "horizon": COUNT, "tasks": (3, torch.zeros(2), torch.zeros(0, 2)),
    })  # fmt: skip
    yield Entry(rl.EnvironmentTasks(environment).sample, {"n": 2}, {"n": COUNT, "generator": (3,)})
    sizes: dict[str, Any] = {"observations": COUNT, "hidden": ([0], 3), "activation": (None,), "context": NUMBER}
    yield Entry(rl.GaussianPolicy, {"observations": 2, "actions": 2}, {
        **sizes, "actions": COUNT, "std": (0.0, -1.0, NAN, "a"), "min_std": (0.0, 2.0, NAN),
    })  # fmt: skip
    yield Entry(rl.CategoricalPolicy, {"observations": 2, "actions": 2}, {"actions": COUNT})
    yield Entry(rl.MultiCategoricalPolicy, {"observations": 2, "choices": [2, 2]}, {"choices": ([], [0], 3, [1.5])})
    policy = rl.GaussianPolicy(2, 2, [4])
    yield Entry(rl.MetaPolicy, {"policy": policy, "rollouts": rollouts(), "rule": fs.SGD(0.1)}, {
        "policy": (None, 3), "rollouts": (None, environment), "rule": (0.1,), "steps": NUMBER,
        "test_scales": ((), (-1.0,), (NAN,), "a", 3), "chunk": COUNT, "loss": (3,), "inner_loss": (3,),
        "adapts": ("no",),
    })  # fmt: skip
    yield Entry(rl.TRPO, {"learner": policy_learner()}, {
        "learner": (None, linear()), "max_kl": POSITIVE, "cg_steps": COUNT, "damping": RATE, "backtracks": COUNT,
        "shrink": (0.0, 1.0, NAN, "a"), "cg_tasks": COUNT,
    })  # fmt: skip
    yield Entry(rl.ProMP, {"learner": policy_learner()}, {
        "learner": (None, linear()), "lr": (-0.1, NAN, "a"), "epochs": COUNT, "kl_weight": RATE,
    })  # fmt: skip
    yield Entry(rl.clipped_surrogate, {}, {"clip": POSITIVE})
    support = rl.EnvironmentTasks(environment).sample(2)
    yield Entry(policy_learner().adapt, {"support": support[0].support}, {
        "support": (None, support, support.support), "steps": NUMBER,
    })  # fmt: skip
    yield Entry(policy_learner().meta_loss, {"tasks": support}, {"tasks": (None, [], support[0], sine().sample(2))})
    yield Entry(rl.as_distribution, {"output": torch.distributions.Normal(torch.zeros(2), torch.ones(2))}, {
        "output": (None, 3, torch.zeros(2)),
    })  # fmt: skip


TABLE = (rules, choices, learning, evaluating, sources, data, networks, classifiers, policies)
