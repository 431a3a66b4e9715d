"""NaN and infinity: noticed before the step, named by task and set, or skipped."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import fewstep
from fewstep.tasks import Batch, Sinusoids, Task
from fewstep.training import RunFolder, TrainingDiverged, divergence
from fewstep.training.validation import Validation


def spoiled(tasks: Task, task: int, part: str, field: str) -> Task:
    sets = {name: getattr(tasks, name) for name in ("support", "query")}
    values = {name: getattr(sets[part], name).clone() for name in ("x", "y")}
    values[field][task, 0] = torch.nan
    return Task(**{**sets, part: Batch(**values)})


def iteration_of(generator: torch.Generator) -> int:
    """The iteration whose meta-batch is drawn with a generator, with seed 0; -1 for other generators."""
    seeds = [fewstep.tasks.generator(0, i).initial_seed() for i in range(110)]
    return seeds.index(generator.initial_seed()) if generator.initial_seed() in seeds else -1


class Spoiled:
    """Tasks of which one has NaN in some meta-batches."""

    def __init__(self, *at: int, part: str = "query", field: str = "y") -> None:
        self.at, self.part, self.field = at, part, field

    def sample(self, n, generator=None):
        tasks = Sinusoids().sample(n, generator)
        return spoiled(tasks, 2, self.part, self.field) if iteration_of(generator) in self.at else tasks


def fit(source, iterations=10, lr=1e-2, loss=fewstep.mse, optimizer=None, **options):
    torch.manual_seed(0)
    learner = fewstep.maml(nn.Linear(1, 1), loss, 0.01)
    optimizer = torch.optim.Adam(learner.parameters(), lr) if optimizer is None else optimizer(learner.parameters())
    metrics, error = [], None
    try:
        metrics = fewstep.fit(
            learner, source, optimizer, iterations=iterations, meta_batch=4, progress=False, **options
        )
    except TrainingDiverged as diverged:
        error = diverged
    return learner, metrics, error


@pytest.mark.parametrize("part", ["support", "query"])
@pytest.mark.parametrize("field", ["x", "y"])
def test_nan_in_one_task_is_named_at_once_and_the_learner_keeps_its_last_good_parameters(part: str, field: str):
    learner, _, error = fit(Spoiled(5, part=part, field=field))
    assert (
        f"became nan at iteration 5. Task 2 of 4 (counted from 0) has NaN or infinity in {field} of its {part}"
        in str(error)
    )
    assert error.iteration == 5
    good, _, _ = fit(Sinusoids(), iterations=5)
    assert all(map(torch.equal, learner.parameters(), good.parameters()))


def test_a_loss_that_is_nan_for_one_task_is_named():
    calls = []

    def loss(model, batch):
        calls.append(0)
        found = fewstep.mse(model, batch)
        return found * torch.where(batch.x[0, 0] > 100, torch.inf, 1.0)

    class Far:
        def sample(self, n, generator=None):
            tasks = Sinusoids().sample(n, generator)
            if calls and len(calls) > 20:
                tasks.query.x[1, 0] = 101.0
            return tasks

    _, _, error = fit(Far(), loss=loss)
    assert "Task 1 of 4 (counted from 0) has a loss of its query set that is NaN or infinite" in str(error)


def test_parameters_that_run_away_are_not_blamed_on_the_data():
    learner, _, error = fit(Sinusoids(), optimizer=lambda values: torch.optim.SGD(values, 1e30))
    assert "Every task has a loss" in str(error)
    assert all(value.isfinite().all() for value in learner.parameters())


def test_bad_meta_batches_can_be_skipped():
    with pytest.warns(UserWarning, match=r"at iteration [37]; this meta-batch is skipped. Task 2 of 4"):
        learner, metrics, error = fit(Spoiled(3, 4, 7), log_every=5, on_nan="skip")
    assert error is None
    assert [row["skipped"] for row in metrics] == [2, 1]
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in metrics)
    optimizer = torch.optim.Adam((twin := fit(Sinusoids(), iterations=1)[0]).parameters(), 1e-2)
    torch.manual_seed(0)
    twin.load_state_dict(fewstep.maml(nn.Linear(1, 1), fewstep.mse, 0.01).state_dict())
    for i in (0, 1, 2, 5, 6, 8, 9):
        optimizer.zero_grad()
        twin.meta_loss(Sinusoids().sample(4, fewstep.tasks.generator(0, i))).backward()
        optimizer.step()
    assert all(map(torch.equal, learner.parameters(), twin.parameters()))


def test_skipping_gives_up_after_many_in_a_row():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, _, error = fit(Spoiled(*range(2, 500)), iterations=500, on_nan="skip")
    assert "100 meta-batches in a row were skipped" in str(error)
    assert error.iteration == 101


def test_a_gradient_that_is_nan_with_a_finite_loss_is_noticed_before_the_step():
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))
            self.scale = 1.0

        def meta_loss(self, tasks):
            return (self.weight * self.scale - self.scale).abs().sqrt().sum() + self.weight.sum()

    learner = Root()
    with pytest.raises(TrainingDiverged, match="The meta-gradient became NaN or infinite at iteration 0"):
        fewstep.fit(learner, Sinusoids(), iterations=3, progress=False)
    assert learner.weight.item() == 1


def test_nan_in_running_statistics_is_taken_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 4), fewstep.models.RunningNorm(4) if hasattr(fewstep.models, "RunningNorm")
                          else nn.LayerNorm(4), nn.Linear(4, 1))  # fmt: skip
    learner = fewstep.maml(model, fewstep.mse, 0.01)
    source = Spoiled(3, part="support", field="x")
    with pytest.raises(TrainingDiverged):
        fewstep.fit(learner, source, iterations=6, meta_batch=4, progress=False)
    assert all(value.isfinite().all() for value in learner.state_dict().values())


def test_an_optimizer_with_its_own_step_is_checked():
    class Own(torch.optim.SGD):
        def meta_step(self, tasks):
            with torch.no_grad():
                for value in self.param_groups[0]["params"]:
                    value.add_(0.1 if self.learner_steps < 3 else torch.nan)
            self.learner_steps += 1
            return torch.tensor(1.0 if self.learner_steps <= 3 else torch.nan)

        learner_steps = 0

    learner, _, error = fit(Sinusoids(), optimizer=lambda values: Own(values, 0.1))
    assert error.iteration == 3
    assert all(value.isfinite().all() for value in learner.parameters())


def test_one_nan_in_validation_is_never_the_best_and_blocks_no_later_one(tmp_path: Path, monkeypatch):
    values = iter([torch.nan, 3.0, torch.nan, 2.0])
    run = Validation.run
    current = [0.0]

    def measured(self, *args, **kwargs):
        current[0] = next(values)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(Validation, "run", measured)

    def metric(model, batch):
        return torch.tensor(current[0])

    fit(Sinusoids(), iterations=4, run=tmp_path, validation=Sinusoids(), validate_every=1, num_validation_tasks=2,
        metric=metric)  # fmt: skip
    assert RunFolder(tmp_path).load("best")["iteration"] == 4
    assert RunFolder(tmp_path).load()["best"] == 2.0
    validation = Validation(None, None, 1, 1, None, None, True, 0)
    assert not validation.is_better(torch.nan, None)
    assert validation.is_better(1.0, torch.nan)  # of an older run


def test_one_iteration_late_as_on_a_gpu_the_parameters_from_before_it_are_put_back(monkeypatch: pytest.MonkeyPatch):
    class Event:
        def synchronize(self) -> None:
            pass

    made = divergence.Divergence.__init__

    def late(self, *args):
        made(self, *args)
        self._late = True

    monkeypatch.setattr(divergence.Divergence, "__init__", late)
    monkeypatch.setattr(divergence, "_read_later", lambda *found: (*found, Event()))
    for last in (8, 6):  # found in the iteration after it, or at the end
        learner, _, error = fit(Spoiled(5), iterations=last)
        assert "became nan at iteration 5. Task 2 of 4 (counted from 0) has NaN" in str(error)
        good, _, _ = fit(Sinusoids(), iterations=5)
        assert all(map(torch.equal, learner.parameters(), good.parameters()))
