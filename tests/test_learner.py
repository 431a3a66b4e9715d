"""The meta-learner: what adapt and score give, how tasks are batched, and what fails with which words."""

import copy
import io
import itertools

import pytest
import torch
from gradients.checks import SmoothNetwork, classification_tasks, regression_tasks
from torch import nn

import fewstep as fs
from fewstep.learner import VMAP_LIMIT
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")


class Named(nn.Module):
    """A network with a method of its own, a buffer and a frozen layer."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(2, 3).requires_grad_(False)
        self.head = nn.Linear(3, 1)
        self.register_buffer("shift", torch.tensor(0.5))

    def forward(self, x):
        return self.head(torch.tanh(self.frozen(x) + self.shift))

    def double(self, x):
        return 2 * self(x)


def by_hand(model, support, lr, steps):
    """The inner loop with torch.optim, on a copy."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr)
    for _ in range(steps):
        optimizer.zero_grad()
        fs.mse(model, support).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder()])
@pytest.mark.parametrize("make", [Named, SmoothNetwork])
def test_adapt_equals_a_hand_written_inner_loop(make, adjoint):
    model, tasks = make(), regression_tasks()
    learner = fs.maml(model, fs.mse, 0.3, steps=2, adjoint=adjoint)
    for steps in (None, 0, 1, 7):
        adapted = learner.adapt(tasks.support[1], steps=steps)
        expected = by_hand(model, tasks.support[1], 0.3, 2 if steps is None else steps)
        for (name, ours), theirs in zip(adapted.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, msg=name)


def test_adapt_gives_a_plain_module_of_the_users_class():
    model, tasks = Named(), regression_tasks()
    learner = fs.maml(model, fs.mse, 0.3, learns="head.weight")
    learner.eval()
    adapted = learner.adapt(tasks.support[0])
    assert type(adapted) is Named
    assert not adapted.training
    assert {name: value.requires_grad for name, value in adapted.named_parameters()} == {
        name: value.requires_grad for name, value in model.named_parameters()
    }
    assert all(value.is_leaf and value.grad is None for value in adapted.parameters())
    assert list(adapted.state_dict()) == list(model.state_dict())
    torch.testing.assert_close(adapted.double(tasks.query.x[0]), 2 * adapted(tasks.query.x[0]))
    twin = Named()
    twin.load_state_dict(adapted.state_dict())
    x = tasks.query.x[0]
    for other in (twin, copy.deepcopy(adapted)):
        assert torch.equal(other(x), adapted(x))
    fs.mse(adapted, tasks.query[0]).backward()
    torch.optim.SGD(adapted.parameters(), 0.1).step()
    assert not torch.equal(adapted(x), twin(x))


@pytest.mark.parametrize("choices", [{"vectorize": True}, {"vectorize": False}, {"vectorize": True, "chunk": 2}])
@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder(), fs.Implicit()])
def test_score_is_the_metric_after_every_step(adjoint, choices):
    learner = fs.maml(SmoothNetwork(), fs.mse, 0.3, steps=2, adjoint=adjoint, **choices)
    tasks = regression_tasks(count=5)

    def largest_error(model, batch):
        return (model(batch.x) - batch.y).abs().max()

    for metric, steps in ((None, None), (largest_error, None), (largest_error, 4), (fs.mse, 0)):
        scores = learner.score(tasks, metric, steps)
        expected = torch.stack(
            [
                torch.stack(
                    [
                        (metric or fs.mse)(learner.adapt(tasks.support[i], steps=k), tasks.query[i])
                        for k in range((2 if steps is None else steps) + 1)
                    ]
                )
                for i in range(5)
            ]
        )
        assert not scores.requires_grad
        torch.testing.assert_close(scores, expected.detach())


def test_inner_loss_that_differs_from_the_outer():
    def absolute(model, batch):
        return (model(batch.x) - batch.y).abs().mean()

    tasks = regression_tasks(count=1)
    learner = fs.maml(SmoothNetwork(), fs.mse, 0.3, steps=1, inner_loss=absolute)
    expected = fs.maml(learner.model, absolute, 0.3, steps=1).adapt(tasks.support[0])
    torch.testing.assert_close(learner.meta_loss(tasks), fs.mse(expected, tasks.query[0]))


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, model, batch):
        return self.scale * fs.mse(model, batch)


def test_two_losses_with_parameters_of_one_name():
    """The inner loss is learned, the outer is not: were it, its best value would be zero."""
    model, tasks = SmoothNetwork(), regression_tasks()
    learner = fs.maml(model, Scaled(3.0), 0.1, inner_loss=Scaled(2.0))
    torch.testing.assert_close(learner.meta_loss(tasks), 3 * fs.maml(model, fs.mse, 0.2).meta_loss(tasks))
    learner.meta_loss(tasks).backward()
    assert learner.inner_loss.scale.grad.abs() > 1e-6
    assert learner.loss.scale.grad is None


def test_meta_training_lowers_the_meta_loss():
    learner = fs.maml(fs.models.MLP(2, [8], 1, nn.Tanh), fs.mse, 0.1, 2)
    tasks = regression_tasks(count=6)
    optimizer = torch.optim.SGD(learner.parameters(), 0.05)
    losses = []
    for _ in range(20):
        loss = learner.meta_loss(tasks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(after < before for before, after in itertools.pairwise(losses))


def test_state_dict_and_copies():
    model, tasks = SmoothNetwork(), regression_tasks()
    learner = fs.meta_sgd(model, fs.mse, 0.3, 2)
    expected = learner.meta_loss(tasks)
    other = fs.meta_sgd(SmoothNetwork(), fs.mse, 0.1, 2)
    assert other.meta_loss(tasks) != expected
    stored = io.BytesIO()
    torch.save(learner.state_dict(), stored)
    stored.seek(0)
    other.load_state_dict(torch.load(stored, weights_only=True))
    twin = copy.deepcopy(learner)
    for same in (other, twin):
        torch.testing.assert_close(same.meta_loss(tasks), expected, rtol=0, atol=0)
    with torch.no_grad():
        twin.model.head.bias.add_(1.0)
    assert twin.meta_loss(tasks) != expected
    torch.testing.assert_close(learner.meta_loss(tasks), expected, rtol=0, atol=0)


def test_other_precision():
    learner, tasks = fs.meta_sgd(SmoothNetwork(), fs.mse, 0.3, 2), regression_tasks()
    expected = learner.meta_loss(tasks)
    came = learner.float().meta_loss(tasks.to(torch.float32))
    assert came.dtype == torch.float32
    torch.testing.assert_close(came.double(), expected, rtol=1e-4, atol=1e-5)


def test_auto_loops_over_large_tasks_and_vmaps_small_ones():
    """Under vmap the loss is called once for the support sets of all tasks, and once for their query sets."""

    def calls(width, examples):
        count = []

        def counted(model, batch):
            count.append(1)
            return fs.mse(model, batch)

        learner = fs.maml(fs.models.MLP(2, [width], 1), counted, 0.01)
        tasks = regression_tasks(count=4, shots=examples, queries=2)
        learner.meta_loss(tasks)
        count.clear()
        learner.meta_loss(tasks)
        return len(count)

    assert 8 * 8 * 4 < VMAP_LIMIT < 8 * 300 * 2000
    assert calls(8, 4) == 2
    assert calls(300, 2000) == 8


def test_looking_at_the_first_tasks_draws_no_random_numbers():
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    tasks, learner = regression_tasks(), fs.maml(model, fs.mse, 0.1)
    values = []
    for _ in range(2):  # the first call looks, the second does not
        torch.manual_seed(3)
        values.append(learner.meta_loss(tasks).item())
    assert values[0] == values[1]


# What cannot work


def expect(error, words, model=None, loss=fs.mse, tasks=None, **choices):
    """Building a learner, or its first meta-batch, fails with these words."""
    choices = {"rule": fs.GradientDescent(0.1), "steps": 1, **choices}
    with pytest.raises(error, match=words):
        fs.MetaLearner(SmoothNetwork() if model is None else model, loss, **choices).meta_loss(
            regression_tasks() if tasks is None else tasks
        )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), r"model\.1 is a BatchNorm1d.*track_running_stats=False"),
        (nn.Sequential(nn.Sequential(nn.BatchNorm2d(3))), r"model\.0\.0 is a BatchNorm2d.*GroupNorm"),
        (nn.BatchNorm1d(2), r"^model is a BatchNorm1d"),
        (nn.InstanceNorm1d(2, track_running_stats=True), r"InstanceNorm1d with running statistics"),
    ],
)
def test_models_that_cannot_be_learned(model, words):
    expect(ValueError, words, model=model)


@pytest.mark.filterwarnings("ignore:.*Lazy modules:UserWarning")
def test_lazy_model():
    expect(ValueError, r"weight has no shape yet.*call the model once", model=nn.LazyLinear(1))


@pytest.mark.parametrize(
    ("error", "choices", "words"),
    [
        (TypeError, {"model": torch.sin}, r"torch\.nn\.Module; got builtin.*models\.Function"),
        (ValueError, {"steps": -1}, r"steps.*0 or more; got -1"),
        (ValueError, {"steps": 1.5}, r"whole number.*got 1\.5"),
        (ValueError, {"vectorize": "yes"}, r"vectorize.*got 'yes'"),
        (ValueError, {"chunk": 0}, r"chunk.*at least 1; got 0"),
        (TypeError, {"rule": 0.1}, r"rule must have init and update.*got float"),
        (TypeError, {"adjoint": "unrolled"}, r"adjoint and objective must be callable.*'unrolled'"),
        (ValueError, {"adapts": "tail.*"}, r"adapts='tail\.\*' matches no trainable.*head\.weight"),
        (ValueError, {"adapts": "scale"}, r"adapts='scale' matches no trainable.*frozen"),
        (ValueError, {"adapts": ["*", "!*"]}, r"adapts=.*leaves no parameter"),
        (ValueError, {"learns": "nothing"}, r"learns='nothing' matches no"),
        (
            ValueError,
            {"adjoint": fs.Implicit(), "objective": fs.multi_step_loss((1.0,))},
            r"Implicit differentiates the end.*multi_step_loss.*query_loss",
        ),
        (
            ValueError,
            {"adjoint": fs.Implicit(), "rule": fs.LearnedRates(SmoothNetwork().named_parameters(), 0.1, "tensor")},
            r"Implicit gives no gradient.*rates.*GradientDescent",
        ),
        (
            KeyError,
            {"rule": fs.LearnedRates({"head.weight": torch.ones(1, 2)}, 0.1, per="tensor")},
            r"no rate for.*first\.weight.*made for.*head\.weight",
        ),
    ],
)
def test_choices_that_cannot_work(error, choices, words):
    expect(error, words, **choices)


def test_implicit_needs_a_positive_pull():
    with pytest.raises(ValueError, match=r"regularization must be positive; got 0"):
        fs.Implicit(regularization=0.0)


def detached(model, batch):
    return (model(batch.x).detach() - batch.y).square().mean()


def per_example(model, batch):
    return (model(batch.x) - batch.y).square().mean(1)


@pytest.mark.parametrize("vectorize", ["auto", True, False])
@pytest.mark.parametrize(
    ("error", "loss", "words"),
    [
        (ValueError, per_example, r"scalar.*got shape \(4,\).*\.mean\(\)"),
        (TypeError, lambda model, batch: fs.mse(model, batch).item(), r"scalar tensor; got float"),
        (ValueError, lambda model, batch: (model(batch.x) > 0).sum(), r"scalar floating-point.*int64"),
        (ValueError, detached, r"reaches none of the adapted parameters.*first\.weight.*\.detach\(\)"),
    ],
)
def test_losses_that_cannot_work(error, loss, words, vectorize):
    expect(error, words, loss=loss, vectorize=vectorize)


def test_loss_that_misses_what_is_adapted():
    model = SmoothNetwork()
    model.spare = nn.Parameter(torch.ones(2))
    expect(ValueError, r"reaches none of the adapted parameters \['spare'\]", model=model, adapts="spare")


class Counting(nn.Module):
    """Writes to its buffer in forward, in place or by a new tensor."""

    def __init__(self, in_place):
        super().__init__()
        self.layer, self.in_place = nn.Linear(2, 1), in_place
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.in_place:
            self.seen += 1
        else:
            self.seen = self.seen + 1
        return self.layer(x)


@pytest.mark.parametrize("converted", [True, False])
@pytest.mark.parametrize("in_place", [True, False])
def test_buffer_that_is_written_in_forward(in_place, converted):
    learner = fs.maml(Counting(in_place), fs.mse, 0.1)
    if converted:
        learner.float().double()
    with pytest.raises(ValueError, match=r"writes to its buffer seen in forward"):
        learner.meta_loss(regression_tasks())


def test_tasks_of_the_wrong_kind():
    tasks = regression_tasks()
    expect(TypeError, r"Task with a leading task axis; got tuple", tasks=(tasks.support, tasks.query))
    expect(TypeError, r"Task with a leading task axis; got Batch", tasks=tasks.support)
    expect(ValueError, r"same leading task axis; got sizes \[4, 5\].*Task\.stack", tasks=tasks[0])


def replace(batch, **tensors):
    return Batch(**{"x": batch.x, "y": batch.y, "weight": batch.weight, **tensors})


def test_support_and_query_that_disagree():
    tasks = regression_tasks()
    wider = Task(tasks.support, replace(tasks.query, x=torch.randn(3, 5, 4)))
    expect(ValueError, r"disagree in x: examples of shape \(2,\).*\(4,\)", tasks=wider)
    single = Task(tasks.support, replace(tasks.query, y=tasks.query.y.float()))
    expect(ValueError, r"disagree in y.*float64.*float32", tasks=single)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_data_that_are_not_finite(value):
    tasks = regression_tasks()
    tasks.support.x[0, 2, 1] = value
    words = rf"loss of the first task is {value}.*support set holds NaN"
    expect(ValueError, words, tasks=tasks, model=nn.Linear(2, 1))


def test_model_that_is_not_finite():
    model = SmoothNetwork()
    nn.init.constant_(model.head.bias, float("nan"))
    expect(ValueError, r"loss of the first task is nan.*data are finite.*model", model=model)


def test_gradient_that_is_not_finite():
    model = fs.models.Function(lambda params, x: params["w"].sqrt() * x[:, :1], {"w": torch.zeros(1)})
    expect(ValueError, r"gradient of the support loss for parameter w is NaN or infinite", model=model)


def test_adaptation_that_diverges():
    learner, tasks = fs.maml(nn.Linear(2, 1), fs.mse, 1e12), regression_tasks()
    with pytest.raises(ValueError, match=r"parameter (weight|bias) NaN or infinite.*lower the inner learning rate"):
        learner.adapt(tasks.support[0], steps=60)


def test_loss_that_ignores_the_weight_of_padding():
    def careless(model, batch):
        return (model(batch.x) - batch.y).square().mean()

    tasks = Task.stack([regression_tasks(count=1, shots=shots)[0] for shots in (2, 5)])
    expect(ValueError, r"Padded examples \(Batch\.weight 0\) change the loss.*fewstep\.mse", loss=careless, tasks=tasks)
    normalising = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Linear(3, 1))
    expect(ValueError, r"normalisation over the batch cannot", model=normalising, tasks=tasks)


def test_errors_of_the_loss_itself_come_through():
    """What is wrong with the task is told as it is, not as a shortcoming of vmap."""
    expect(ValueError, r"mse expects targets", model=nn.Linear(2, 2))
    expect(ValueError, r"cross_entropy expects", loss=fs.cross_entropy)
    wide = classification_tasks(inputs=3)
    expect(RuntimeError, r"mat1 and mat2 shapes", loss=fs.cross_entropy, tasks=wide)


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ("*", ["body.weight", "body.bias", "head.weight", "head.bias"]),
        ("head.*", ["head.weight", "head.bias"]),
        (["*.bias", "head.weight"], ["body.bias", "head.weight", "head.bias"]),
        (["*", "!head.*"], ["body.weight", "body.bias"]),
        (["*", "!*.bias", "head.bias"], ["body.weight", "head.weight", "head.bias"]),
        ("body.weight", ["body.weight"]),
    ],
)
def test_choosing_parameters_by_name(patterns, chosen):
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    assert fs.learner.select(patterns, dict(model.named_parameters()), "adapts") == chosen


def test_adapt_wants_a_support_set():
    learner = fs.maml(nn.Linear(1, 1), fs.mse, 0.1)
    with pytest.raises(TypeError, match=r"got a Task.*task\.support"):
        learner.adapt(fs.tasks.Sinusoids().sample(1)[0])
