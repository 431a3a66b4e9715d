"""Tasks: random generators, sine waves, indexing, stacking with padding."""

import copy
import math
import pickle

import pytest
import torch

import fewstep as fs
from fewstep.tasks import Batch, SinusoidPool, Sinusoids, Task, TaskSource, generator


def test_generator_is_a_pure_function_of_its_arguments():
    first = torch.rand(8, generator=generator(3, 5, stream=1))
    torch.rand(100)
    torch.manual_seed(9)
    assert torch.equal(first, torch.rand(8, generator=generator(3, 5, stream=1)))


def test_generators_differ():
    """No two of many (seed, iteration, stream) share a generator; iterations of one run never do."""
    run = {generator(0, i).initial_seed() for i in range(5000)}
    assert len(run) == 5000
    seeds = {generator(s, i, stream).initial_seed() for s in range(12) for i in range(40) for stream in range(4)}
    assert len(seeds) == 12 * 40 * 4
    draws = torch.stack([torch.rand(2, generator=generator(s, i)) for s in range(20) for i in range(20)])
    assert len({tuple(row) for row in draws.tolist()}) == 400
    assert (draws.mean(0) - 0.5).abs().max() < 0.06  # neighbours are independent: 4 standard errors are 0.058


def test_large_and_negative_seeds():
    seeds = {generator(s, 0).initial_seed() for s in (0, 2**32, 2**40 + 7, -1)}
    assert len(seeds) == 4


def test_sinusoids_keep_their_ranges_and_formula():
    source = Sinusoids(shots=6, queries=9, amplitude=(0.5, 2.0), phase=(0.2, 1.0), x_range=(-3.0, 4.0))
    waves = source.waves(2000, generator(0, 0))
    for column, (low, high) in zip(waves.T, ((0.5, 2.0), (0.2, 1.0)), strict=True):
        width = high - low
        assert low <= column.min() < low + 0.02 * width
        assert high - 0.02 * width < column.max() <= high
    tasks = source.points(waves, generator(0, 1))
    for batch, examples in ((tasks.support, 6), (tasks.query, 9)):
        assert batch.x.shape == batch.y.shape == (2000, examples, 1)
        assert -3.0 <= batch.x.min() < -2.9
        assert 3.9 < batch.x.max() <= 4.0
        for wave, x, y in zip(waves[:20].tolist(), batch.x.tolist(), batch.y.tolist(), strict=False):
            assert [value[0] for value in y] == pytest.approx(
                [wave[0] * math.sin(value[0] - wave[1]) for value in x], abs=1e-6
            )


def test_defaults_are_the_papers():
    source = Sinusoids()
    assert (source.amplitude, source.phase, source.x_range) == ((0.1, 5.0), (0.0, math.pi), (-5.0, 5.0))
    assert (source.shots, source.queries) == (10, 10)


def test_support_range_bounds_the_support_only():
    tasks = Sinusoids(shots=50, queries=50, support_range=(0.0, 5.0)).sample(20, generator(0, 0))
    assert 0.0 <= tasks.support.x.min() < 0.2
    assert tasks.query.x.min() < -4.5


def test_the_oracle_gets_amplitude_and_phase():
    source = Sinusoids(shots=3, queries=4, oracle=True)
    tasks = source.sample(5, generator(0, 0))
    waves = source.waves(5, generator(0, 0))
    for batch in (tasks.support, tasks.query):
        assert batch.x.shape[-1] == 3
        x, amplitude, phase = batch.x.unbind(-1)
        torch.testing.assert_close(batch.y[..., 0], amplitude * torch.sin(x - phase))
        assert torch.equal(batch.x[:, 0, 1:], waves)


def test_samples_depend_on_the_generator_only():
    source = Sinusoids()
    first, again, other = (source.sample(4, generator(*key)) for key in ((0, 1), (0, 1), (0, 2)))
    assert torch.equal(first.support.x, again.support.x)
    assert torch.equal(first.query.y, again.query.y)
    assert not torch.equal(first.support.x, other.support.x)
    assert isinstance(source, TaskSource)


def test_pool_keeps_its_waves_and_draws_new_points():
    pool = SinusoidPool(Sinusoids(shots=200, queries=3, oracle=True), count=7, seed=4)
    first, second = pool.sample(7, generator(0, 0)), pool.sample(7, generator(0, 1))
    assert torch.equal(first.support.x[..., 1:], second.support.x[..., 1:])
    assert not torch.equal(first.support.x[..., 0], second.support.x[..., 0])
    other = SinusoidPool(pool.sinusoids, count=7, seed=5).sample(7, generator(0, 0))
    assert not torch.equal(first.support.x[:, 0, 1:], other.support.x[:, 0, 1:])
    with pytest.raises(ValueError, match=r"holds 7 waves.*n=3"):
        pool.sample(3)


@pytest.mark.parametrize("name", ["shots", "queries"])
def test_sinusoids_need_examples(name):
    with pytest.raises(ValueError, match=rf"{name} must be at least 1; got 0"):
        Sinusoids(**{name: 0})


def batch(examples, tasks=None, weight=None):
    lead = (examples,) if tasks is None else (tasks, examples)
    return Batch(torch.randn(*lead, 2), torch.randint(5, lead), weight)


def test_indexing():
    tasks = Task(batch(4, tasks=3), batch(6, tasks=3, weight=torch.rand(3, 6)))
    assert (len(tasks), len(tasks[1].support), len(tasks[1].query)) == (3, 4, 6)
    assert torch.equal(tasks[1].query.x, tasks.query.x[1])
    assert torch.equal(tasks[1].query.weight, tasks.query.weight[1])
    assert tasks[1].support.weight is None
    assert torch.equal(tasks[1:].support.y, tasks.support.y[1:])
    assert torch.equal(tasks.support[torch.tensor([2, 0])].x, tasks.support.x[[2, 0]])
    with pytest.raises(TypeError, match="no leading axis"):
        len(Batch(torch.tensor(1.0), torch.tensor(1.0)))


def test_to_keeps_the_dtype_of_labels():
    task = Task(batch(4, weight=torch.ones(4)), batch(6)).to(torch.float64)
    assert task.support.x.dtype == task.support.weight.dtype == task.query.x.dtype == torch.float64
    assert task.support.y.dtype == task.query.y.dtype == torch.int64
    assert task.to("cpu", torch.float32).support.x.dtype == torch.float32
    moved = task.to("meta")
    assert {moved.support.x.device.type, moved.support.y.device.type} == {"meta"}


def test_stack_pads_with_weight_zero():
    tasks = [Task(batch(shots), batch(6)) for shots in (2, 5)]
    stacked = Task.stack(tasks)
    assert torch.equal(stacked.support.weight, torch.tensor([[1.0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]))
    assert stacked.query.weight is None
    assert torch.equal(stacked[0].support.x[:2], tasks[0].support.x)
    assert torch.equal(stacked[1].support.y, tasks[1].support.y)
    assert stacked[0].support.x.shape == (5, 2)


def test_stack_keeps_existing_weights():
    weight = torch.tensor([0.5, 2.0])
    stacked = Task.stack([Task(batch(2, weight=weight), batch(1)), Task(batch(3), batch(1))])
    assert torch.equal(stacked.support.weight, torch.tensor([[0.5, 2, 0], [1, 1, 1]]))


def test_stack_supports_any_pytree():
    tasks = [Task({"states": torch.full((3,), float(i))}, torch.tensor(float(i))) for i in range(2)]
    stacked = Task.stack(tasks)
    assert torch.equal(stacked.support["states"][1], torch.ones(3))
    assert torch.equal(stacked.query, torch.tensor([0.0, 1.0]))


def test_stack_errors():
    with pytest.raises(ValueError, match="at least one task"):
        Task.stack([])
    with pytest.raises(ValueError, match="support set 1 has no examples"):
        Task.stack([Task(batch(2), batch(2)), Task(batch(0), batch(2))])
    other = Task(Batch(torch.randn(2, 7), torch.randint(5, (2,))), batch(2))
    with pytest.raises(ValueError, match=r"support sets differ in shape.*\(2,\), \(7,\)"):
        Task.stack([Task(batch(2), batch(2)), other])


def test_used_tasks_are_copied_and_pickled_without_cached_attributes():
    tasks = fs.tasks.Sinusoids().sample(2)
    fs.maml(torch.nn.Linear(1, 1), fs.mse, 0.1).meta_loss(tasks)
    for twin in (copy.deepcopy(tasks), pickle.loads(pickle.dumps(tasks))):
        assert vars(twin).keys() == {"support", "query"}
        torch.testing.assert_close(twin.query.x, tasks.query.x)
