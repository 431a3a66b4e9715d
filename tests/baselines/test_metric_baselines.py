"""What all metric- and memory-based learners have in common: tasks apart, order, names, padding, learning."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import fewstep
from fewstep.baselines import (
    MANN,
    EpisodicLearner,
    FullContext,
    LRUMemory,
    MatchingNetwork,
    NearestNeighbour,
    PrototypicalNetwork,
    RelationModule,
    RelationNetwork,
    SiameseNetwork,
)
from fewstep.tasks import Batch, Task, generator

SIGNAL = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
NOISE = torch.randn(5, 64, generator=torch.Generator().manual_seed(2))


@dataclass(frozen=True)
class Blots:
    """Classes of 1×8×8 images that differ in a few patterns, beneath other patterns that are only noise."""

    ways: int = 4
    shots: int = 2
    queries: int = 4
    noise: float = 1.5

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        """``n`` tasks, the examples in random order."""
        prototypes = torch.randn(n, self.ways, 5, generator=generator) @ SIGNAL
        support, query = (self._batch(prototypes, count, generator) for count in (self.shots, self.queries))
        return Task(support, query)

    def _batch(self, prototypes: torch.Tensor, count: int, generator: torch.Generator | None) -> Batch:
        n, examples = len(prototypes), self.ways * count
        y = torch.arange(self.ways).repeat(count)[torch.randperm(examples, generator=generator)].expand(n, -1)
        x = prototypes[:, y[0]] + self.noise * torch.randn(n, examples, 5, generator=generator) @ NOISE
        return Batch(x.view(n, examples, 1, 8, 8), y.contiguous())


def maps(norm: bool) -> list[nn.Module]:
    return [nn.Conv2d(1, 4, 3, padding=1), *([nn.BatchNorm2d(4, track_running_stats=False)] if norm else []), nn.ReLU()]


def vectors(norm: bool) -> nn.Module:
    return nn.Sequential(*maps(norm), nn.Flatten(), nn.Linear(256, 12), nn.Tanh())


def relation(norm: bool, ways: int) -> EpisodicLearner:
    module = nn.Sequential(nn.Flatten(), nn.Linear(8 * 64, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid(), nn.Flatten(0))
    return RelationNetwork(nn.Sequential(*maps(norm)), RelationModule(4, 8) if norm else module, ways)


METHODS: dict[str, Callable[[bool, int], EpisodicLearner]] = {
    "prototypical": lambda norm, ways: PrototypicalNetwork(vectors(norm), ways),
    "prototypical-cosine": lambda norm, ways: PrototypicalNetwork(vectors(norm), ways, "cosine"),
    "matching": lambda norm, ways: MatchingNetwork(vectors(norm), ways),
    "matching-context": lambda norm, ways: MatchingNetwork(vectors(norm), ways, FullContext(12, steps=2)),
    "relation": relation,
    "siamese": lambda norm, ways: SiameseNetwork(vectors(norm), 12, ways),
    "nearest": lambda norm, ways: NearestNeighbour(vectors(norm), ways),
    "mann": lambda norm, ways: MANN(vectors(norm), 12, ways, hidden=32, memory=LRUMemory(8, 8, 1)),
}
SEQUENTIAL = {"matching-context", "mann"}
every_method = pytest.mark.parametrize("name", METHODS)


def learner(name: str, norm: bool = True, ways: int = 4) -> EpisodicLearner:
    torch.manual_seed(0)
    return METHODS[name](norm, ways)


@every_method
def test_tasks_do_not_touch_each_other(name: str):
    one, tasks = learner(name).double(), Blots().sample(3).to(torch.float64)
    together = one.score(tasks)
    assert together.shape == (3, 1)
    for i in range(3):
        alone = one.score(tasks[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1])
        adapted = one.adapt(tasks[i].support)
        torch.testing.assert_close(one.loss(adapted, tasks[i].query).detach(), alone[0, 0])
    assert together.std() > 1e-5
    torch.testing.assert_close(one.meta_loss(tasks), together.mean())


@every_method
def test_the_gradient_is_that_of_a_loop_over_tasks(name: str):
    one, tasks = learner(name).double(), Blots().sample(3).to(torch.float64)
    one.meta_loss(tasks).backward()
    vmapped = [value.grad.clone() for value in one.parameters()]
    assert all(gradient.abs().sum() > 0 for gradient in vmapped[-2:])
    loop = learner(name).double()
    loop._each.vmaps = False
    loop.meta_loss(tasks).backward()
    for found, value in zip(vmapped, loop.parameters(), strict=True):
        torch.testing.assert_close(found, value.grad, rtol=1e-6, atol=1e-9)


@every_method
def test_order_of_the_support_set(name: str):
    one, task = learner(name).double(), Blots().sample(1).to(torch.float64)[0]
    shuffled = task.support[torch.randperm(len(task.support))]
    found, again = (one.adapt(support)(task.query.x) for support in (task.support, shuffled))
    assert torch.allclose(found, again) == (name not in SEQUENTIAL)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "mann"])  # there a label has weights of its own
def test_classes_renamed_are_logits_in_another_order(name: str):
    one, task = learner(name).double(), Blots().sample(1).to(torch.float64)[0]
    names = torch.tensor([2, 0, 3, 1])
    renamed = Batch(task.support.x, names[task.support.y])
    torch.testing.assert_close(one.adapt(renamed)(task.query.x)[:, names], one.adapt(task.support)(task.query.x))


@every_method
def test_padding_changes_nothing(name: str):
    one = learner(name, norm=False).double()
    few, many = (Blots(shots=shots, queries=shots).sample(1).to(torch.float64)[0] for shots in (1, 3))
    stacked = Task.stack([few, many])
    expected = torch.cat([one.score(Task.stack([task])) for task in (few, many)])
    torch.testing.assert_close(one.score(stacked), expected)
    torch.testing.assert_close(one.adapt(stacked[0].support)(few.query.x), one.adapt(few.support)(few.query.x))
    gradients = []
    for tasks in ([few, many], None):
        one.zero_grad()
        (one.meta_loss(stacked) if tasks is None else sum(one.meta_loss(Task.stack([t])) / 2 for t in tasks)).backward()
        gradients.append([value.grad.clone() for value in one.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@every_method
def test_padding_and_batch_norm_do_not_go_together(name: str):
    stacked = Task.stack([Blots(shots=shots).sample(1)[0] for shots in (1, 3)])
    with pytest.raises(ValueError, match="batch norm.*GroupNorm"):
        learner(name).meta_loss(stacked)
    with pytest.raises(ValueError, match="batch norm.*GroupNorm"):
        learner(name).adapt(stacked[0].support)


@every_method
def test_it_learns(name: str):
    """From the noise patterns, which are louder, to the ones that tell classes apart; on classes never seen."""
    source, meta_batch, iterations = Blots(ways=3, shots=1), 16, 60
    if name == "mann":  # which has to find out first that a label belongs to the image before it
        source, meta_batch, iterations = Blots(ways=2, shots=1, noise=0.3), 32, 120
    one = learner(name, ways=source.ways)
    before = fewstep.evaluate(one, source, num_tasks=200, metric=fewstep.accuracy)
    optimizer = torch.optim.Adam(one.parameters(), 0.01)
    fewstep.fit(one, source, optimizer, iterations=iterations, meta_batch=meta_batch, progress=False)
    found = fewstep.evaluate(one, source, num_tasks=200, metric=fewstep.accuracy)
    assert found.steps == 0
    assert before.mean[0] < 0.65
    assert found.mean[0] > 0.75


def test_training_resumes_bit_for_bit(tmp_path):
    def train(iterations: int, folder: str) -> list[torch.Tensor]:
        one = learner("mann")
        optimizer = torch.optim.Adam(one.parameters(), 0.01)
        options = {"meta_batch": 2, "progress": False, "run": tmp_path / folder, "resume": True}
        fewstep.fit(
            one, Blots(), optimizer, iterations=iterations, validation=Blots(), num_validation_tasks=2, **options
        )
        return list(one.parameters())

    train(2, "stopped")
    assert all(torch.equal(a, b) for a, b in zip(train(4, "stopped"), train(4, "whole"), strict=True))


def test_the_learner_and_what_it_adapts_hold_copies():
    encoder = vectors(norm=True)
    one, task = PrototypicalNetwork(encoder, 4), Blots().sample(1)[0]
    adapted = one.adapt(task.support)
    before = adapted(task.query.x)
    with torch.no_grad():
        one.encoder[0].weight.zero_()
    assert torch.equal(adapted(task.query.x), before)
    assert encoder[0].weight.abs().sum() > 0
    assert "x" in adapted.state_dict()


def test_prototypes_may_be_trained_with_more_ways_than_at_test():
    many, few, tasks = learner("prototypical", ways=6), learner("prototypical"), Blots().sample(2)
    many.meta_loss(Blots(ways=6).sample(2)).backward()
    few.load_state_dict(many.state_dict())
    assert few.score(tasks).shape == (2, 1)
    with pytest.raises(ValueError, match="no example of class 4"):
        many.score(tasks)


def test_an_encoder_that_vmap_does_not_take_is_looped_over():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(8, 6, batch_first=True)

        def forward(self, x):
            return self.lstm(x.squeeze(1))[0][:, -1]

    one, tasks = PrototypicalNetwork(Rows(), 4), Blots().sample(3)
    with pytest.warns(UserWarning, match="Looping over tasks") as seen:
        together = one.score(tasks)
    assert seen[0].filename == __file__
    torch.testing.assert_close(together, torch.cat([one.score(tasks[i : i + 1]) for i in range(3)]))
    one.meta_loss(tasks).backward()
    assert one.encoder.lstm.weight_ih_l0.grad.abs().sum() > 0


def test_large_tasks_are_looped_over_and_leave_no_graph():
    """Memory does not grow with the meta-batch: each task's activations are gone when the next is begun."""
    one, tasks = PrototypicalNetwork(nn.Sequential(*maps(True), nn.Flatten()), 4), Blots(queries=200).sample(3)
    kept: list[weakref.ref] = []
    alive: list[int] = []

    class Saved:
        def __init__(self, tensor: torch.Tensor):
            self.tensor = tensor
            kept.append(weakref.ref(self))

    one.encoder.register_forward_pre_hook(lambda *_: alive.append(sum(saved() is not None for saved in kept)))
    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        loss = one.meta_loss(tasks)
    assert kept
    assert alive == [0, 0, 0, 0]  # a look at the first task, then each of the three
    loss.backward()
    losses = [one.loss(one.adapt(tasks[i].support), tasks[i].query) for i in range(3)]
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    found = [value.grad.clone() for value in one.parameters()]
    one.zero_grad()
    one._each.vmaps = True
    one.meta_loss(tasks).backward()
    for value, gradient in zip(one.parameters(), found, strict=True):
        torch.testing.assert_close(gradient, value.grad, rtol=1e-3, atol=1e-5)


def with_support(tasks: Task, **changes) -> Task:
    batch = tasks.support
    return Task(Batch(**{"x": batch.x, "y": batch.y, "weight": batch.weight, **changes}), tasks.query)


def test_tasks_that_cannot_work():
    one, tasks = learner("prototypical", norm=False), Blots().sample(2, generator(0, 0))
    labels = tasks.support.y
    with pytest.raises(TypeError, match="Expected a fewstep.tasks.Task.*got Batch"):
        one.meta_loss(tasks.support)
    with pytest.raises(ValueError, match=r"support set must be from 0 to 3 \(ways=4\); got 0 to 4"):
        one.meta_loss(with_support(tasks, y=labels + (labels == 3).long()))
    with pytest.raises(ValueError, match="query set must be from 0 to 3.*got -1 to 3"):
        one.score(Task(tasks.support, Batch(tasks.query.x, tasks.query.y - (tasks.query.y == 0).long())))
    with pytest.raises(ValueError, match="support set has no example of class 2"):
        one.meta_loss(with_support(tasks, y=labels - (labels == 2).long()))
    with pytest.raises(ValueError, match="support set has no example of class 1"):
        one.meta_loss(with_support(tasks, weight=(labels != 1).float()))
    with pytest.raises(ValueError, match=r"images \[tasks, examples, ...\].*got x of shape \(8, 1, 8, 8\)"):
        one.meta_loss(tasks[0])
    with pytest.raises(ValueError, match="class labels.*torch.float32"):
        one.meta_loss(with_support(tasks, y=labels.float()))
    with pytest.raises(ValueError, match="number of tasks and image shape"):
        one.meta_loss(with_support(tasks, x=tasks.support.x[..., :4]))


def test_adapting_to_what_cannot_work():
    one, task = learner("prototypical"), Blots().sample(2)[0]
    with pytest.raises(TypeError, match="Pass task.support"):
        one.adapt(task)
    with pytest.raises(ValueError, match="no example of class 0"):
        one.adapt(task.support[task.support.y != 0])
    with pytest.raises(ValueError, match="PrototypicalNetwork has no inner steps; got steps=3"):
        one.adapt(task.support, steps=3)
    with pytest.raises(ValueError, match="has no inner steps; got steps=1"):
        fewstep.evaluate(one, Blots(), num_tasks=2, steps=1)
    with pytest.raises(ValueError, match=r"shape of the support images, \[n, 1, 8, 8\]; got shape \(3, 64\)"):
        one.adapt(task.support)(torch.zeros(3, 64))


def test_modules_that_cannot_work():
    with pytest.raises(ValueError, match="BatchNorm2d with running statistics"):
        PrototypicalNetwork(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), 4)
    with pytest.raises(ValueError, match="ways must be at least 2; got 1"):
        MatchingNetwork(nn.Flatten(), 1)
    with pytest.raises(ValueError, match='"euclidean" or "cosine"; got \'manhattan\''):
        NearestNeighbour(nn.Flatten(), 4, "manhattan")
    with pytest.raises(ValueError, match=r"feature vectors \[n, d\].*nn.Flatten\(\)\); got shape \(24, 4, 8, 8\)"):
        PrototypicalNetwork(nn.Sequential(*maps(True)), 4).meta_loss(Blots().sample(2))
    with pytest.raises(ValueError, match=r"feature maps \[n, C, H, W\]; got shape \(24, 12\)"):
        RelationNetwork(vectors(True), RelationModule(4, 8), 4).meta_loss(Blots().sample(2))
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        FullContext(4, steps=0)
