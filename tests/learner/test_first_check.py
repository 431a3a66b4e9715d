"""The first check of each kind of meta-batch: when it is made, and that it changes nothing."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gradients.checks import assert_same, meta_gradient, regression_tasks
from torch import Tensor, nn

import fewstep as fs
from fewstep.learner import first_checks
from fewstep.learner.first_checks import MAX_SIZES
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")


def network(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 4), *(between or (nn.Tanh(),)), nn.Linear(4, 1))


class Fixed:
    """A source that returns the same tasks each time."""

    def __init__(self, tasks: Task) -> None:
        self.tasks = tasks

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        return self.tasks[:n]


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """The meta-batches that were checked."""
    seen: list[Any] = []
    original = first_checks.first_check

    def counted(choices: Any, tasks: Any, *rest: Any) -> Any:
        seen.append(tasks)
        return original(choices, tasks, *rest)

    monkeypatch.setattr(first_checks, "first_check", counted)
    return seen


# When


def test_a_kind_is_checked_once(checked: list[Task]) -> None:
    learner = fs.maml(network(), fs.mse, 0.1)
    for _ in range(3):
        learner.meta_loss(regression_tasks()).backward()
        learner.score(regression_tasks())
        learner.adapt(regression_tasks()[0].support)
    assert len(checked) == 1


def autocast_of(learner: fs.MetaLearner, tasks: Task) -> Task:
    with torch.autocast("cpu"):
        learner.meta_loss(tasks)
    return tasks


def evaluated(learner: fs.MetaLearner, tasks: Task) -> Task:
    fs.evaluate(learner, Fixed(tasks), num_tasks=3)
    return tasks


def after(change: Callable[[Any], Any]) -> Callable[[fs.MetaLearner, Task], Task]:
    def changed(learner: fs.MetaLearner, tasks: Task) -> Task:
        change(learner)
        learner.meta_loss(tasks)
        return tasks

    return changed


def of_tasks(change: Callable[[Task], Task]) -> Callable[[fs.MetaLearner, Task], Task]:
    def changed(learner: fs.MetaLearner, tasks: Task) -> Task:
        tasks = change(tasks)
        learner.meta_loss(tasks)
        return tasks

    return changed


ANEW: dict[str, Callable[[fs.MetaLearner, Task], Task]] = {
    "mode": after(lambda learner: learner.eval()),
    "mode of a part": after(lambda learner: learner.model[1].eval()),
    "scheduled adjoint": after(lambda learner: setattr(learner, "iteration", 5)),
    "evaluation": evaluated,
    "autocast": autocast_of,
    "metric": lambda learner, tasks: (learner.score(tasks, lambda model, batch: model(batch.x).mean()), tasks)[1],
    "shape of the support set": of_tasks(lambda t: Task(Batch(t.support.x[:, :2], t.support.y[:, :2]), t.query)),
    "shape of the query set": of_tasks(lambda t: Task(t.support, Batch(t.query.x[:, :2], t.query.y[:, :2]))),
    "dtype": of_tasks(lambda t: Task(Batch(t.support.x.float(), t.support.y), Batch(t.query.x.float(), t.query.y))),
    "weights": of_tasks(lambda t: Task(Batch(t.support.x, t.support.y, torch.ones(3, 4)), t.query)),
    "list of tasks": of_tasks(lambda t: [t[0], t[1]]),
}


@pytest.mark.parametrize("what", ANEW)
def test_a_new_kind_is_checked(what: str, checked: list[Task]) -> None:
    class Cast(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.double()

    adjoint = fs.Scheduled(lambda iteration: fs.FirstOrder() if iteration >= 5 else fs.Unrolled())
    net = nn.Sequential(Cast(), nn.Dropout(0.5), nn.Linear(2, 1))
    learner = fs.maml(net, fs.mse, 0.1, adjoint=adjoint, vectorize=False)
    tasks = regression_tasks()
    learner.meta_loss(tasks)
    assert len(checked) == 1
    new = ANEW[what](learner, tasks)
    assert len(checked) == 2
    assert what == "evaluation" or checked[1] is new
    learner.iteration = 0
    learner.train()
    learner.meta_loss(tasks)
    assert len(checked) == 2


def test_sizes_beyond_a_limit_are_not_checked(checked: list[Task]) -> None:
    net = nn.Linear(2, 1)
    learner = fs.maml(net, fs.mse, 0.1)
    for size in range(1, MAX_SIZES + 5):
        task = regression_tasks(1, shots=size)[0]
        slopes = torch.autograd.grad(fs.mse(net, task.support), list(net.parameters()))
        weight, bias = (p - 0.1 * slope for p, slope in zip(net.parameters(), slopes, strict=True))
        expected = fs.mse(lambda x, w=weight, b=bias: nn.functional.linear(x, w, b), task.query)
        torch.testing.assert_close(learner.meta_loss([task]), expected)
    assert len(checked) == MAX_SIZES


def test_a_copy_checks_again(checked: list[Task]) -> None:
    learner, tasks = fs.maml(network(), fs.mse, 0.1), regression_tasks()
    learner.meta_loss(tasks)
    twin = copy.deepcopy(learner)
    assert_same(meta_gradient(twin, tasks), meta_gradient(learner, tasks))
    assert len(checked) == 2


@pytest.mark.parametrize("first", ["train", "evaluate", "score", "adapt"])
def test_dropout_does_not_depend_on_earlier_checks(first: str) -> None:
    net = nn.Sequential()
    net.body, net.head = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5)), nn.Linear(8, 1)
    learner, tasks = fs.anil(net, fs.mse, 0.1, 3, head="head.*", vectorize=False), regression_tasks()
    if first == "evaluate":
        fs.evaluate(learner, Fixed(tasks), num_tasks=3)
    elif first == "score":
        learner.eval().score(tasks)
        learner.train()
    elif first == "adapt":
        learner.adapt(tasks.support[0])
    torch.manual_seed(5)
    came = learner.meta_loss(tasks)
    torch.manual_seed(5)
    expected = torch.stack([by_hand(learner.model, tasks[i], 0.1, 3) for i in range(3)]).mean()
    torch.testing.assert_close(came, expected, rtol=1e-12, atol=1e-12)


def by_hand(model: nn.Module, task: Task, lr: float, steps: int) -> Tensor:
    """ANIL in a custom loop: a new mask for each pass."""
    weight, bias = model.head.weight, model.head.bias

    def loss(batch: Batch) -> Tensor:
        return (nn.functional.linear(model.body(batch.x), weight, bias) - batch.y).square().mean()

    for _ in range(steps):
        gradients = torch.autograd.grad(loss(task.support), [weight, bias], create_graph=True)
        weight, bias = (p - lr * g for p, g in zip((weight, bias), gradients, strict=True))
    return loss(task.query)


# It changes nothing


@pytest.mark.parametrize("vectorize", ["auto", True, False])
def test_no_random_numbers_are_drawn(vectorize: bool | str) -> None:
    tasks = regression_tasks()
    learner = fs.maml(network(nn.Dropout(0.5)), fs.mse, 0.1, vectorize=vectorize)
    torch.manual_seed(3)
    first = learner.meta_loss(tasks)
    torch.manual_seed(3)
    assert torch.equal(learner.meta_loss(tasks), first)
    plain = fs.maml(network(), fs.mse, 0.1, vectorize=vectorize)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    plain.meta_loss(tasks)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before[1:]


def test_evaluate_does_not_change_modes_module_or_settings() -> None:
    net = network(nn.Dropout(0.5))
    net[1].eval()
    net[0].forward = net[0].forward  # an attribute of the instance
    learner, tasks = fs.maml(net, fs.mse, 0.1), regression_tasks()
    modes = [module.training for module in learner.modules()]
    attributes = [dict(vars(module)) for module in learner.model.modules()]
    state = {name: value.clone() for name, value in learner.state_dict().items()}

    def settings() -> tuple[Any, ...]:
        backends = torch.backends.mkldnn.enabled, torch.backends.cuda.flash_sdp_enabled(), torch.get_num_threads()
        return *backends, torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()

    before = settings()
    fs.evaluate(learner, Fixed(tasks), num_tasks=2)
    learner.meta_loss(tasks)
    learner.adapt(tasks.support[0])
    assert settings() == before
    assert [module.training for module in learner.modules()] == modes
    for module, then in zip(learner.model.modules(), attributes, strict=True):
        assert vars(module).keys() == then.keys()
        assert all(vars(module)[name] is value for name, value in then.items())
    assert all(torch.equal(value, state[name]) for name, value in learner.state_dict().items())
    assert all(value.grad is None for value in learner.parameters())


def test_evaluation_uses_no_dropout_in_any_mode() -> None:
    learner, tasks = fs.maml(network(nn.Dropout(0.5)), fs.mse, 0.1), regression_tasks()
    came = fs.evaluate(learner, Fixed(tasks), num_tasks=3).values
    assert learner.training
    torch.testing.assert_close(came, learner.eval().score(tasks), rtol=0, atol=0)


@pytest.mark.parametrize("vectorize", [True, False])
def test_scoring_in_several_threads_equals_scoring_in_one(vectorize: bool) -> None:
    learner = fs.anil(network(), fs.mse, 0.1, 3, head="2.*", vectorize=vectorize)
    batches = [regression_tasks() for _ in range(4)]
    expected = [learner.score(tasks) for tasks in batches]
    fresh = copy.deepcopy(learner)
    found: list[list[Tensor]] = [[] for _ in batches]
    start = threading.Barrier(len(batches))

    def work(place: int) -> None:
        start.wait()
        for _ in range(5):
            found[place].append(fresh.score(batches[place]))

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for came, right in zip(found, expected, strict=True):
        assert len(came) == 5
        for scores in came:
            torch.testing.assert_close(scores, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("made_inside", [True, False])
def test_inference_mode(made_inside: bool) -> None:
    learner, tasks = fs.maml(network(), fs.mse, 0.1, 2), regression_tasks()
    expected, loss = learner.score(tasks), learner.meta_loss(tasks).detach()
    adapted = learner.adapt(tasks.support[0])
    with torch.inference_mode():
        given = Task(*(Batch(b.x + 0, b.y + 0) for b in (tasks.support, tasks.query))) if made_inside else tasks
        assert given.support.x.is_inference() == made_inside
        scores, value, model = learner.score(given), learner.meta_loss(given), learner.adapt(given[0].support)
        evaluated = fs.evaluate(learner, Fixed(given), num_tasks=3).values
    for came, right in ((scores, expected), (evaluated, expected), (value, loss)):
        torch.testing.assert_close(came, right, rtol=0, atol=1e-14)
    torch.testing.assert_close(model[0].weight, adapted[0].weight, rtol=0, atol=1e-14)
    assert not model[0].weight.is_inference()


@pytest.mark.usefixtures("double")
def test_a_relu_of_exactly_zero_is_no_wrong_derivative():
    """At a kink central differences agree with each other, and with no derivative."""
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    with torch.no_grad():
        for layer in model[::2]:
            layer.bias.zero_()
    x = torch.randn(3, 4, 2)
    x[:, :3] = 0  # padding, or the first observation of every episode
    batch = fs.Batch(x, torch.randn(3, 4, 1))
    for adapts in ("4.*", "*"):
        fs.MetaLearner(model, fs.mse, rule=fs.SGD(0.1), steps=1, adapts=adapts).meta_loss(fs.Task(batch, batch))
