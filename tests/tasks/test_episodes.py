"""Episodes: N-way K-shot tasks of labelled images."""

import math

import pytest
import torch

from fewstep.datasets import LabelledImages
from fewstep.tasks import Episodes, TaskSource, generator


def dataset(*counts: int, size: int = 2) -> LabelledImages:
    """Grey images; a corner of each is marked, and the pixel next to it encodes (class, number)."""
    values = torch.cat([20 * label + torch.arange(count) for label, count in enumerate(counts)])
    images = torch.zeros(len(values), 1, size, size, dtype=torch.uint8)
    images[:, 0, 0, 0] = 255
    images[:, 0, 0, 1] = values
    return LabelledImages(images, torch.tensor([0, *counts]).cumsum(0), [f"class{i}" for i in range(len(counts))])


def tags(x: torch.Tensor) -> torch.Tensor:
    """The number of each image, which rotations do not change."""
    return (x.sum((-3, -2, -1)) * 255).round().long() - 255


def test_shapes_labels_and_range():
    tasks = Episodes(dataset(*[6] * 6), ways=3, shots=2, queries=4).sample(5, generator(0, 0))
    assert tasks.support.x.shape == (5, 6, 1, 2, 2)
    assert tasks.query.x.shape == (5, 12, 1, 2, 2)
    assert tasks.support.y.tolist() == [[0, 0, 1, 1, 2, 2]] * 5
    assert tasks.query.y.tolist() == [[0] * 4 + [1] * 4 + [2] * 4] * 5
    assert (tasks.support.x.dtype, tasks.support.y.dtype) == (torch.float32, torch.int64)
    assert tasks.support.x[..., 0, 0].unique().tolist() == [1.0]
    assert isinstance(Episodes(dataset(2, 2), 2, 1, 1), TaskSource)


@pytest.mark.parametrize("counts", [[6] * 5, [6, 4, 5, 6, 5]])
def test_classes_and_examples_are_drawn_without_replacement(counts):
    tasks = Episodes(dataset(*counts), ways=4, shots=1, queries=3).sample(200, generator(0, 0))
    drawn = torch.cat([tags(tasks.support.x).view(200, 4, 1), tags(tasks.query.x).view(200, 4, 3)], 2)
    for task in drawn:
        assert len(task.flatten().unique()) == 16
        labels = task // 20
        assert (labels == labels[:, :1]).all()  # one class behind each label
        assert len(labels[:, 0].unique()) == 4


def test_all_classes_labels_and_examples_are_equally_likely():
    counts = [3, 5, 4]
    tasks = Episodes(dataset(*counts), ways=2, shots=1, queries=1).sample(6000, generator(0, 0))
    support, query = tags(tasks.support.x), tags(tasks.query.x)
    for label in range(2):
        classes = support[:, label] // 20
        assert (classes.bincount() / 6000 - 1 / 3).abs().max() < 0.025  # 4 standard errors
        for i, count in enumerate(counts):
            for drawn in (support, query):
                numbers = drawn[classes == i, label] % 20
                shares = numbers.bincount(minlength=count) / len(numbers)
                assert len(shares) == count
                assert (shares - 1 / count).abs().max() < 4 * math.sqrt(1 / count / len(numbers))


def test_all_examples_of_a_class_may_be_used():
    tasks = Episodes(dataset(3, 7), ways=2, shots=1, queries=2).sample(50, generator(0, 0))
    for support, query in zip(tags(tasks.support.x), tags(tasks.query.x), strict=True):
        small = [tag for tag in (*support.tolist(), *query.tolist()) if tag < 20]
        assert sorted(small) == [0, 1, 2]


def test_one_rotation_for_each_class_of_each_task():
    tasks = Episodes(dataset(*[5] * 8), ways=4, shots=2, queries=3, rotations=True).sample(300, generator(0, 0))

    def corners(x):
        """Which of the four corners is marked: one of four for each quarter turn."""
        return x[:, :, 0, [0, 1, 1, 0], [0, 0, 1, 1]].argmax(-1)

    support, query = corners(tasks.support.x).view(300, 4, 2), corners(tasks.query.x).view(300, 4, 3)
    drawn = torch.cat([support, query], 2)
    assert (drawn == drawn[:, :, :1]).all()
    turns = drawn[..., 0]
    assert (turns.flatten().bincount() / 1200 - 1 / 4).abs().max() < 0.05
    assert (turns != turns[:, :1]).any(1).float().mean() > 0.9  # of classes, not of tasks
    per_class = [turns[tags(tasks.support.x)[:, ::2] // 20 == label].unique() for label in range(8)]
    assert all(len(seen) == 4 for seen in per_class)  # drawn for every task


def test_rotations_are_turns_of_the_same_image():
    images = LabelledImages(
        torch.arange(2 * 2 * 9, dtype=torch.uint8).view(2, 2, 3, 3).repeat_interleave(2, 0),
        torch.tensor([0, 2, 4]),
        ["a", "b"],
    )
    tasks = Episodes(images, ways=2, shots=1, queries=1, rotations=True).sample(60, generator(0, 0))
    turned = [torch.rot90(image, quarter, (1, 2)) for image in images.images[::2].float() / 255 for quarter in range(4)]
    seen = {next(i for i, wanted in enumerate(turned) if torch.equal(wanted, x)) for x in tasks.support.x.flatten(0, 1)}
    assert seen == set(range(8))


def test_tasks_depend_on_the_generator_only():
    source = Episodes(dataset(*[4] * 10), 5, 1, 1, rotations=True)
    first, again, other = (source.sample(8, generator(*key)) for key in ((0, 3), (0, 3), (0, 4)))
    for batch in ("support", "query"):
        assert torch.equal(getattr(first, batch).x, getattr(again, batch).x)
        assert not torch.equal(getattr(first, batch).x, getattr(other, batch).x)
    before = torch.get_rng_state()
    source.sample(8, generator(0, 5))
    assert torch.equal(torch.get_rng_state(), before)


def test_floating_point_examples_are_not_converted():
    points = LabelledImages(torch.randn(6, 3), torch.tensor([0, 3, 6]), ["a", "b"])
    tasks = Episodes(points, 2, 1, 2).sample(4, generator(0, 0))
    assert tasks.query.x.shape == (4, 4, 3)
    assert torch.isin(tasks.query.x, points.images).all()


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((1, 1, 1), "ways must be at least 2; got 1"),
        ((2, 0, 1), "shots must be at least 1; got 0"),
        ((2, 1, 0), "queries must be at least 1; got 0"),
        ((4, 1, 1), "4 ways need as many classes; the data set has 3"),
        ((2, 2, 3), r"2 shots and 3 queries need 5 examples of every class; class 'class1' has 4"),
    ],
)
def test_too_few_classes_or_examples_fail_at_construction(numbers, says):
    with pytest.raises(ValueError, match=says):
        Episodes(dataset(6, 4, 5), *numbers)


def test_rotations_need_square_images():
    oblong = LabelledImages(torch.zeros(4, 1, 2, 3), torch.tensor([0, 2, 4]), ["a", "b"])
    with pytest.raises(ValueError, match=r"square images .*got \(1, 2, 3\)"):
        Episodes(oblong, 2, 1, 1, rotations=True)
