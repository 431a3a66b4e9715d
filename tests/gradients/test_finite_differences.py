"""The meta-gradient of every supported rule × adjoint × objective agrees with finite differences."""

import pytest
import torch
from gradients.checks import (
    SmoothNetwork,
    assert_matches_differences,
    assert_same,
    classification_tasks,
    meta_gradient,
    regression_tasks,
)
from torch import nn

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")

STEPS = 2


def trainable(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


RULES = {
    "descent": lambda model: fs.GradientDescent(0.3),
    "momentum": lambda model: fs.GradientDescent(0.2, momentum=0.7),
    "adam": lambda model: fs.Adam(0.1, betas=(0.6, 0.9), eps=1e-2),
    "rate per parameter": lambda model: fs.LearnedRates(trainable(model), 0.3, per="parameter"),
    "rate per tensor": lambda model: fs.LearnedRates(trainable(model), 0.3, per="tensor"),
    "rate per parameter and step": lambda model: fs.LearnedRates(trainable(model), 0.3, per="parameter", steps=STEPS),
    "rate per tensor and step": lambda model: fs.LearnedRates(trainable(model), 0.3, per="tensor", steps=STEPS),
}
ADJOINTS = {
    "unrolled": fs.Unrolled(),
    "recomputed": fs.Recomputed(),
    "recomputed, forward": fs.Recomputed("forward"),
}
OBJECTIVES = {"query": fs.query_loss, "multi-step": fs.multi_step_loss((0.3, 0.7))}


class LearnedLoss(nn.Module):
    """A squared error with a learned weight, and a learned penalty on differences between predictions."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.8, 0.2]))

    def forward(self, model, batch):
        prediction = model(batch.x)
        return self.weight[0] * (prediction - batch.y).square().mean() + self.weight[1] * prediction.var()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("rule", RULES)
def test_meta_gradient_by_finite_differences_of_the_meta_loss(rule, adjoint, objective):
    model = SmoothNetwork()
    learner = fs.MetaLearner(
        model,
        fs.mse,
        rule=RULES[rule](model),
        steps=STEPS,
        adjoint=ADJOINTS[adjoint],
        objective=OBJECTIVES[objective],
    )
    assert_matches_differences(learner, regression_tasks())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("adapts", ["head.*", ["*", "!head.*"], ["first.bias", "head.weight"]])
def test_mixed_derivatives_with_partial_adaptation(adapts, adjoint, objective):
    learner = fs.maml(
        SmoothNetwork(),
        fs.mse,
        0.3,
        STEPS,
        adapts=adapts,
        adjoint=ADJOINTS[adjoint],
        objective=OBJECTIVES[objective],
    )
    assert_matches_differences(learner, regression_tasks())


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("adapts", ["*", "head.*"])
def test_learned_inner_loss(adapts, adjoint):
    learner = fs.MetaLearner(
        SmoothNetwork(),
        fs.mse,
        rule=fs.GradientDescent(0.3),
        steps=STEPS,
        adapts=adapts,
        adjoint=ADJOINTS[adjoint],
        inner_loss=LearnedLoss(),
    )
    tasks = regression_tasks()
    assert_matches_differences(learner, tasks)
    assert meta_gradient(learner, tasks)["inner_loss.weight"].abs().min() > 1e-4


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_cross_entropy(adjoint):
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3))
    learner = fs.maml(model, fs.cross_entropy, 0.5, STEPS, adjoint=ADJOINTS[adjoint])
    assert_matches_differences(learner, classification_tasks())


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("choices", [{"vectorize": False}, {"vectorize": True, "chunk": 2}])
def test_tasks_in_a_loop_or_in_chunks(choices, adjoint):
    model = SmoothNetwork()
    rule = RULES["rate per tensor and step"](model)
    learner = fs.MetaLearner(model, fs.mse, rule=rule, steps=STEPS, adjoint=ADJOINTS[adjoint], **choices)
    assert_matches_differences(learner, regression_tasks())


def test_no_steps_is_joint_training():
    model = SmoothNetwork()
    tasks = regression_tasks()
    learner = fs.maml(model, fs.mse, 0.3, steps=0)
    assert_matches_differences(learner, tasks)
    joint = torch.stack([fs.mse(model, tasks.query[i]) for i in range(len(tasks))]).mean()
    torch.testing.assert_close(learner.meta_loss(tasks), joint)


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder(), fs.Implicit()])
def test_only_learned_parameters_get_a_gradient(adjoint):
    learner = fs.maml(SmoothNetwork(), fs.mse, 0.3, STEPS, learns="first.*", adjoint=adjoint)
    reference = fs.maml(SmoothNetwork(), fs.mse, 0.3, STEPS, adjoint=adjoint)
    reference.load_state_dict(learner.state_dict())
    tasks = regression_tasks()
    every = meta_gradient(reference, tasks)
    came = meta_gradient(learner, tasks)
    assert set(came) == {"model.first.weight", "model.first.bias"}
    assert_same(came, {name: every[name] for name in came}, atol=1e-12)
    assert all(value.grad is None for name, value in learner.named_parameters() if name not in came)
