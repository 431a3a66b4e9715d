"""Pretraining over all classes, and what is done with its features at test."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

import fewstep
from fewstep.baselines import ClassBatches, CosineHead, FineTuned, NearestNeighbour, PretrainedClassifier
from fewstep.tasks import Batch, Task, generator


def encoder() -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))


def episodes(tasks: int, ways: int = 3, shots: int = 2) -> Task:
    def batch(count: int) -> Batch:
        return Batch(torch.randn(tasks, ways * count, 1, 8, 8), torch.arange(ways).repeat(count).expand(tasks, -1))

    return Task(batch(shots), batch(4))


def dataset(classes: int, sizes: tuple[int, ...] = (20,), seed: int = 0) -> SimpleNamespace:
    """Classes that differ in a few patterns beneath louder noise; other classes for another seed."""
    own = torch.Generator().manual_seed(seed)
    signal, noise = (torch.randn(4, 64, generator=torch.Generator().manual_seed(number)) for number in (1, 2))
    counts = [sizes[c % len(sizes)] for c in range(classes)]
    kinds = torch.randn(classes, 4, generator=own) @ signal
    images = torch.cat([kinds[c].expand(counts[c], -1) for c in range(classes)])
    images = images + 1.5 * torch.randn(len(images), 4, generator=own) @ noise
    images = (127 + 16 * images).clamp(0, 255).to(torch.uint8).view(-1, 1, 8, 8)
    return SimpleNamespace(images=images, starts=torch.tensor([0, *counts]).cumsum(0))


class Episodes:
    """Few-shot tasks of a dataset."""

    def __init__(self, data: SimpleNamespace, ways: int = 3, shots: int = 1, queries: int = 5):
        self.data, self.ways, self.shots, self.queries = data, ways, shots, queries

    def sample(self, n: int, generator: torch.Generator | None = None) -> Task:
        tasks = []
        for _ in range(n):
            chosen = torch.randperm(len(self.data.starts) - 1, generator=generator)[: self.ways]
            shown, asked = [], []
            for c in chosen.tolist():
                start, end = self.data.starts[c], self.data.starts[c + 1]
                of_class = self.data.images[start:end][torch.randperm(int(end - start), generator=generator)] / 255
                shown.append(of_class[: self.shots])
                asked.append(of_class[self.shots : self.shots + self.queries])
            labels = torch.arange(self.ways)
            tasks.append(
                Task(
                    Batch(torch.cat(shown), labels.repeat_interleave(self.shots)),
                    Batch(torch.cat(asked), labels.repeat_interleave(self.queries)),
                )
            )
        return Task.stack(tasks)


@pytest.mark.parametrize("cosine", [False, True])
def test_fine_tuning_is_sgd_on_a_new_head(double, cosine: bool):
    head = CosineHead(10, 3) if cosine else nn.Linear(10, 3)
    learner = FineTuned(encoder(), head, ways=3, rule=fewstep.GradientDescent(0.1, momentum=0.9), steps=4)
    tasks, body = episodes(2), encoder()
    found = learner.score(tasks)
    accuracies = learner.score(tasks, fewstep.accuracy, steps=6)
    assert (found.shape, accuracies.shape) == ((2, 5), (2, 7))
    for i in range(2):
        shown, asked = (body(batch.x[i]).detach() for batch in (tasks.support, tasks.query))
        weights = [value.detach().clone().requires_grad_() for value in head.parameters()]
        optimizer = torch.optim.SGD(weights, 0.1, momentum=0.9)

        def logits(x: torch.Tensor, weights: list[torch.Tensor] = weights) -> torch.Tensor:
            if not cosine:
                return x @ weights[0].mT + weights[1]
            return 10 * (x @ weights[0].mT) / (x.norm(dim=1)[:, None] * weights[0].norm(dim=1))

        for step in range(7):
            scores = logits(asked)
            if step < 5:
                torch.testing.assert_close(found[i, step], functional.cross_entropy(scores, tasks.query.y[i]))
            right = (scores.argmax(1) == tasks.query.y[i]).double().mean()
            torch.testing.assert_close(accuracies[i, step], right)
            if step == 4:
                adapted = learner.adapt(tasks[i].support)
                torch.testing.assert_close(adapted(tasks.query.x[i]), scores)
            optimizer.zero_grad()
            functional.cross_entropy(logits(shown), tasks.support.y[i]).backward()
            optimizer.step()


def test_fine_tuning_keeps_tasks_apart_and_itself_unchanged():
    learner = FineTuned(encoder(), nn.Linear(10, 3), ways=3, rule=fewstep.GradientDescent(0.1), steps=3)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    tasks = episodes(3)
    together = learner.score(tasks)
    torch.testing.assert_close(together[1:2], learner.score(tasks[1:2]))
    learner.adapt(tasks[0].support)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())


def test_fine_tuning_honours_weights(double):
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh())
    learner = FineTuned(layers, nn.Linear(10, 3), ways=3, rule=fewstep.GradientDescent(0.1), steps=3)
    few, many = episodes(1, shots=1)[0], episodes(1, shots=3)[0]
    alone = torch.cat([learner.score(Task.stack([task])) for task in (few, many)])
    torch.testing.assert_close(learner.score(Task.stack([few, many])), alone)


def test_pretraining_is_cross_entropy_over_all_classes(double):
    few_shot = FineTuned(encoder(), nn.Linear(10, 3), ways=3, rule=fewstep.GradientDescent(0.1), steps=2)
    body, head = encoder(), nn.Linear(10, 7)
    learner = PretrainedClassifier(few_shot, head, classes=7)
    tasks = ClassBatches(dataset(7), size=16).sample(2, generator(0, 0))
    learner.meta_loss(tasks).backward()
    losses = [functional.cross_entropy(head(body(tasks.query.x[i])), tasks.query.y[i]) for i in range(2)]
    ((losses[0] + losses[1]) / 2).backward()
    for found, expected in ((few_shot.encoder, body), (learner.head, head)):
        for a, b in zip(found.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    assert all(value.grad is None for value in few_shot.fitting.parameters())


@pytest.mark.parametrize("kind", ["fine-tuning", "baseline++", "nearest neighbour"])
def test_pretraining_helps_on_new_classes(kind: str):
    rule = fewstep.GradientDescent(0.5)
    few_shot = {
        "fine-tuning": lambda: FineTuned(encoder(), nn.Linear(10, 3), ways=3, rule=rule, steps=20),
        "baseline++": lambda: FineTuned(encoder(), CosineHead(10, 3), ways=3, rule=rule, steps=20),
        "nearest neighbour": lambda: NearestNeighbour(encoder(), ways=3),
    }[kind]()
    head = CosineHead(10, 30) if kind == "baseline++" else nn.Linear(10, 30)
    learner = PretrainedClassifier(few_shot, head, classes=30)
    test = Episodes(dataset(20, seed=5))
    before = fewstep.evaluate(learner, test, num_tasks=100, metric=fewstep.accuracy)
    optimizer = torch.optim.Adam([value for value in learner.parameters() if value.requires_grad], 0.01)
    source = ClassBatches(dataset(30), size=64)
    fewstep.fit(learner, source, optimizer, iterations=100, meta_batch=1, progress=False)
    after = fewstep.evaluate(learner, test, num_tasks=100, metric=fewstep.accuracy)
    assert after.steps == (0 if kind == "nearest neighbour" else 20)
    assert after.mean[-1] > before.mean[-1] + 0.1
    assert after.mean[-1] > 0.75
    if after.steps:
        assert after.mean[0] < 0.45  # a new head knows nothing


def test_class_batches_hold_every_image_under_its_class():
    data = dataset(5, sizes=(3, 8, 1))
    source = ClassBatches(data, size=40)
    assert source.classes == 5
    tasks = source.sample(30, generator(0, 0))
    assert tasks.support is tasks.query
    assert (tasks.query.x.shape, tasks.query.y.shape) == ((30, 40, 1, 8, 8), (30, 40))
    expected = set()
    for c, (start, end) in enumerate(zip(data.starts[:-1], data.starts[1:], strict=True)):
        expected |= {(c, *image.flatten().tolist()) for image in data.images[start:end]}
    images = (tasks.query.x * 255).round().long().view(30 * 40, 64)
    seen = torch.cat([tasks.query.y.view(-1, 1), images], 1)
    assert {tuple(row) for row in seen.tolist()} == expected
    again, other = (source.sample(30, generator(0, i)) for i in (0, 1))
    assert torch.equal(again.query.x, tasks.query.x)
    assert not torch.equal(other.query.y, tasks.query.y)


def test_what_cannot_work():
    data = dataset(5)
    with pytest.raises(ValueError, match="size must be at least 1; got 0"):
        ClassBatches(data, size=0)
    with pytest.raises(ValueError, match=r"starts must increase from 0 to the number of images, 100; got \[0, 99\]"):
        ClassBatches(SimpleNamespace(images=data.images, starts=torch.tensor([0, 99])))
    learner = PretrainedClassifier(NearestNeighbour(encoder(), ways=3), nn.Linear(10, 4), classes=4)
    with pytest.raises(ValueError, match=r"query set must be from 0 to 3 \(ways=4\); got 0 to 4"):
        learner.meta_loss(ClassBatches(data).sample(2, generator(0, 0)))
    learner = PretrainedClassifier(NearestNeighbour(encoder(), ways=3), nn.Linear(10, 4), classes=5)
    with pytest.raises(ValueError, match=r"logits \[64, 5\] \(classes=5\); got shape \(64, 4\)"):
        learner.meta_loss(ClassBatches(data).sample(2, generator(0, 0)))
    tuned = FineTuned(encoder(), nn.Linear(10, 3), ways=3, rule=fewstep.GradientDescent(0.1))
    task = episodes(1)[0]
    with pytest.raises(TypeError, match="Pass task.support"):
        tuned.adapt(task)
    with pytest.raises(ValueError, match="no example of class 2"):
        tuned.adapt(task.support[task.support.y < 2])
    with pytest.raises(ValueError, match="BatchNorm1d with running statistics"):
        FineTuned(nn.BatchNorm1d(3), nn.Linear(3, 3), ways=3, rule=fewstep.GradientDescent(0.1))
    padded = Task.stack([episodes(1, shots=1)[0], episodes(1)[0]])
    with pytest.raises(ValueError, match="batch norm"):
        tuned.score(padded)


def test_a_cosine_head_is_fitted_in_few_steps_to_long_features():
    """Nearly so with weights of any length, but a step turns a longer one less: it must start short enough."""
    features = torch.randn(6, 5, 256)
    support, query = (Batch(features + 0.5 * torch.randn(6, 5, 256), torch.arange(5).expand(6, -1)) for _ in range(2))
    learner = FineTuned(nn.Identity(), CosineHead(256, 5), ways=5, rule=fewstep.GradientDescent(0.1))
    assert learner.score(Task(support, query), fewstep.accuracy, steps=20)[:, -1].min() == 1
