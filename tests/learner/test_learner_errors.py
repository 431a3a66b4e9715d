"""Unsupported models, losses, data and choices fail at once, with what was expected, what came, and the fix."""

import pytest
import torch
from gradients.checks import SmoothNetwork, classification_tasks, regression_tasks
from torch import nn

import fewstep as fs
from fewstep.tasks import Batch, Task

pytestmark = pytest.mark.usefixtures("double")


def expect(error, words, model=None, loss=fs.mse, tasks=None, **choices):
    """Assert that making a learner, or its first meta-batch, fails with these words."""
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
            {"adjoint": fs.Implicit(), "inner_batch": 5},
            r"Implicit differentiates the minimum of one loss.*inner_batch.*FirstOrder",
        ),
        (ValueError, {"inner_batch": 0}, r"inner_batch must be a whole number, 1 or more, or None for all; got 0"),
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
        (
            KeyError,
            {"rule": fs.CarriedAdam({"head.weight": torch.ones(1, 2)}, 0.1)},
            r"no moments for.*first\.weight.*that are adapted",
        ),
    ],
)
def test_invalid_choices_are_refused(error, choices, words):
    expect(error, words, **choices)


def test_implicit_needs_a_positive_regularization():
    with pytest.raises(ValueError, match=r"regularization must be a finite number greater than 0; got 0"):
        fs.Implicit(regularization=0.0)
    with pytest.raises(ValueError, match=r"damping must be a finite number of at least 0; got -1"):
        fs.Implicit(damping=-1.0)


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
def test_invalid_losses_are_refused(error, loss, words, vectorize):
    expect(error, words, loss=loss, vectorize=vectorize)


def test_loss_that_misses_what_is_adapted():
    model = SmoothNetwork()
    model.spare = nn.Parameter(torch.ones(2))
    expect(ValueError, r"reaches none of the adapted parameters \['spare'\]", model=model, adapts="spare")


class Counting(nn.Module):
    """Writes to its buffer in forward, in place or with a new tensor."""

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


def test_errors_of_the_loss_are_not_replaced():
    """An error in the task is raised as it is, and not blamed on vmap."""
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


def test_adapt_expects_a_support_set():
    learner = fs.maml(nn.Linear(1, 1), fs.mse, 0.1)
    with pytest.raises(TypeError, match=r"got a Task.*task\.support"):
        learner.adapt(fs.tasks.Sinusoids().sample(1)[0])


def test_labels_without_an_output_are_named():
    support = Batch(torch.randn(2, 5, 4), torch.arange(5).expand(2, 5))
    for loss in (fs.cross_entropy, fs.supervised(nn.functional.cross_entropy)):
        expect(ValueError, "class label 3.*no output.*N outputs", nn.Linear(4, 3), loss, Task(support, support))


def test_adapt_refuses_a_task_axis():
    tasks = regression_tasks()
    learner = fs.maml(SmoothNetwork(), fs.mse, 0.1)
    learner.meta_loss(tasks)
    with pytest.raises(ValueError, match=r"support set of one task.*leading task axis.*tasks\[0\]\.support"):
        learner.adapt(tasks.support)
    learner.adapt(tasks[0].support)
