"""Any module can be meta-learned unchanged, and is never modified."""

import copy
import math
import warnings

import pytest
import torch
from gradients.checks import (
    SmoothNetwork,
    assert_matches_differences,
    assert_same,
    learned,
    meta_gradient,
    regression_tasks,
)
from torch import nn

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")

ADJOINTS = {
    "unrolled": fs.Unrolled(),
    "recomputed": fs.Recomputed(),
    "recomputed, forward": fs.Recomputed("forward"),
}


class Recurrent(nn.Module):
    """Treats the features of an example as a sequence."""

    def __init__(self, kind):
        super().__init__()
        self.cell = kind(1, 2, batch_first=True)
        self.head = nn.Linear(2, 1)

    def forward(self, x):
        return self.head(self.cell(x[..., None])[0][:, -1])


class Attentive(nn.Module):
    """Treats the features of an example as tokens."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.attention = nn.MultiheadAttention(4, 2, dropout=dropout, batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        tokens = self.embed(x[..., None])
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


class Transformer(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 3, dropout, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.layer(self.embed(x[..., None])).mean(1))


class UsedTwice(nn.Module):
    """One nested block, applied two times, with a buffer."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Tanh(), nn.Linear(2, 2)))
        self.head = nn.Linear(2, 1)
        self.register_buffer("shift", torch.tensor([0.3, -0.2]))

    def forward(self, x):
        return self.head(self.block(torch.tanh(self.block(x)) + self.shift))


class Integers(nn.Module):
    """Holds parameters that are not floating-point numbers."""

    def __init__(self):
        super().__init__()
        self.order = nn.Parameter(torch.tensor([1, 0]), requires_grad=False)
        self.body = nn.Linear(2, 1)

    def forward(self, x):
        return self.body(torch.tanh(x[:, self.order]))


def normalised():
    return nn.Sequential(
        nn.Linear(2, 3), nn.BatchNorm1d(3, track_running_stats=False), nn.Tanh(), nn.LayerNorm(3), nn.Linear(3, 1)
    )


def parametrized():
    layer = nn.Linear(2, 2)
    nn.utils.parametrize.register_parametrization(layer, "weight", nn.Softplus())
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(2, 1))


def function():
    def line(params, x):
        return torch.tanh(x @ params["slope"]) + params["offset"]

    return fs.models.Function(line, {"slope": torch.randn(2, 1), "offset": torch.zeros(1)})


MODELS = {
    "linear": lambda: nn.Linear(2, 1),
    "function": function,
    "used twice": UsedTwice,
    "integer parameters": Integers,
    "normalised": normalised,
    "parametrized": parametrized,
    "attention": Attentive,
}


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("model", MODELS)
def test_meta_gradient(model, adjoint):
    learner = fs.maml(MODELS[model](), fs.mse, 0.2, 2, adjoint=ADJOINTS[adjoint], vectorize=True)
    assert_matches_differences(learner, regression_tasks(count=2), atol=5e-8)


NORMS = {
    "batch": lambda: nn.BatchNorm1d(3, track_running_stats=False),
    "layer": lambda: nn.LayerNorm((3, 4)),
    "instance": lambda: nn.InstanceNorm1d(3, affine=True),
    "group": lambda: nn.GroupNorm(3, 3),
    "rms": lambda: nn.RMSNorm(4),
}


@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder(), fs.Implicit()])
@pytest.mark.parametrize("norm", NORMS)
def test_second_derivatives_of_norms_under_vmap_equal_those_in_a_loop(norm, adjoint):
    """PyTorch's batching rule computes a wrong second derivative of a norm with a scale."""
    model = nn.Sequential(
        nn.Linear(2, 12), nn.Tanh(), nn.Unflatten(1, (3, 4)), NORMS[norm](), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1)
    )
    nn.init.uniform_(model[3].weight, 0.5, 1.5)
    tasks = regression_tasks()
    vmapped, looped = (
        fs.maml(model, fs.mse, 0.2, 2, adjoint=adjoint, vectorize=vectorize) for vectorize in (True, False)
    )
    assert_same(meta_gradient(vmapped, tasks), meta_gradient(looped, tasks), atol=1e-11)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("chunk", [None, 2])
def test_group_norm_takes_channels_last_images_under_vmap(count: int, chunk: int | None) -> None:
    """PyTorch's kernel raises for some of them, such as a meta-batch, or its last chunk, of one task."""
    x = torch.rand(count, 10, 3, 8, 8).transpose(2, 4).contiguous().transpose(2, 4)
    tasks = fs.tasks.Task(*(fs.Batch(images, torch.arange(5).repeat(count, 1)) for images in x.split(5, 1)))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 5))
    auto, vmapped, looped = (
        fs.maml(model, fs.cross_entropy, 0.1, 2, vectorize=vectorize, chunk=chunk)
        for vectorize in ("auto", True, False)
    )
    expected, scores = meta_gradient(looped, tasks), looped.score(tasks, fs.cross_entropy)
    for learner in (auto, vmapped):  # a fall back to the loop would warn, and so fail
        torch.testing.assert_close(learner.score(tasks, fs.cross_entropy), scores)
        assert_same(meta_gradient(learner, tasks), expected, atol=1e-11)


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("train", [True, False])
def test_transformer(train, adjoint):
    """In evaluation mode PyTorch would use a fused kernel, which has no second derivative."""
    learner = fs.maml(Transformer(0.0 if train else 0.5), fs.mse, 0.05, 1, adjoint=ADJOINTS[adjoint], vectorize=True)
    learner.train(train)
    assert_matches_differences(learner, regression_tasks(count=1, inputs=3), atol=1e-6)


@pytest.mark.parametrize("make", [Attentive, Transformer])
def test_adjoints_agree_on_attention(make):
    model, tasks = make(), regression_tasks()
    for train in (True, False):
        unrolled, *recomputed = (
            meta_gradient(fs.maml(model, fs.mse, 0.1, 3, adjoint=adjoint).train(train), tasks)
            for adjoint in ADJOINTS.values()
        )
        for gradient in recomputed:
            assert_same(gradient, unrolled, atol=1e-11)
    assert torch.backends.mha.get_fastpath_enabled()


class ReadsANumber(Recurrent):
    """The same, and reads a number back, which does not run under vmap."""

    def forward(self, x):
        return super().forward(x) if x.sum().item() < math.inf else x


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_networks_are_looped_over(kind, adjoint):
    model, tasks = ReadsANumber(kind), regression_tasks(count=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what PyTorch loads for its first derivative in forward mode
        meta_gradient(fs.maml(model, fs.mse, 0.2, 2, adjoint=ADJOINTS[adjoint], vectorize=False), tasks)
    learner = fs.maml(model, fs.mse, 0.2, 2, adjoint=ADJOINTS[adjoint])
    with pytest.warns(UserWarning, match=r"Looping over tasks.*vectorize=False") as caught:
        came = [meta_gradient(learner, tasks) for _ in range(2)][1]
    assert len(caught) == 1
    assert caught[0].filename == meta_gradient.__code__.co_filename  # points to the caller of meta_loss
    looped = fs.maml(model, fs.mse, 0.2, 2, adjoint=ADJOINTS[adjoint], vectorize=False)
    assert_same(came, meta_gradient(looped, tasks), atol=1e-12)
    assert_matches_differences(looped, tasks)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_networks_in_single_precision(kind):
    """oneDNN has its own LSTM for float32, without forward-mode derivatives."""
    model, tasks = Recurrent(kind), regression_tasks()
    expected = meta_gradient(fs.maml(model, fs.mse, 0.2, 2, vectorize=False), tasks)
    for adjoint in ADJOINTS.values():
        learner = fs.maml(model, fs.mse, 0.2, 2, adjoint=adjoint, vectorize=False).float()
        came = meta_gradient(learner, tasks.to(torch.float32))
        assert_same({name: value.double() for name, value in came.items()}, expected, atol=1e-5)
    assert torch.backends.mkldnn.enabled


@pytest.mark.parametrize("choices", [{"vectorize": True}, {"vectorize": False}, {"vectorize": True, "chunk": 2}])
def test_dropout_is_replayed(choices):
    model, tasks = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1)), regression_tasks()
    gradients = []
    for adjoint in ADJOINTS.values():
        learner = fs.maml(model, fs.mse, 0.2, 3, adjoint=adjoint, **choices)
        learner.meta_loss(tasks)
        torch.manual_seed(5)
        gradients.append(meta_gradient(learner, tasks))
    for gradient in gradients[1:]:
        assert_same(gradient, gradients[0], atol=1e-12)
    other = meta_gradient(learner, tasks)
    assert not torch.allclose(other["model.0.weight"], gradients[0]["model.0.weight"])


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_dropout_masks_differ_between_tasks(adjoint, vectorize):
    """The same task twice: with dropout the scores differ, without it they are equal."""
    one = regression_tasks(count=1)
    twice = fs.tasks.Task(*(batch[torch.tensor([0, 0])] for batch in (one.support, one.query)))
    model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    learner = fs.maml(model, fs.mse, 0.1, 1, adjoint=ADJOINTS[adjoint], vectorize=vectorize)
    first, second = learner.score(twice)[:, -1]
    assert first != second
    first, second = learner.eval().score(twice)[:, -1]
    torch.testing.assert_close(first, second)


def test_frozen_parameters_do_not_change():
    learner = fs.maml(SmoothNetwork(), fs.mse, 0.2, 2)
    tasks = regression_tasks()
    learner.meta_loss(tasks).backward()
    assert "model.scale" not in learned(learner)
    assert learner.model.scale.grad is None
    assert learner.adapt(tasks.support[0]).scale.item() == 1.3


def test_tied_weights_stay_tied():
    learner = fs.maml(SmoothNetwork(), fs.mse, 0.2, 2)
    adapted = learner.adapt(regression_tasks().support[0])
    assert learner.model.first.weight is learner.model.second.weight
    assert adapted.first.weight is adapted.second.weight
    assert not torch.equal(adapted.first.weight, learner.model.first.weight)


def test_parameter_without_use_is_zero_when_recomputed():
    """Recomputed steps cannot distinguish a zero derivative from a missing one."""
    model = SmoothNetwork()
    model.spare = nn.Parameter(torch.ones(2))
    for adjoint in ADJOINTS.values():
        gradient = meta_gradient(fs.maml(model, fs.mse, 0.2, 2, adjoint=adjoint), regression_tasks())["model.spare"]
        assert gradient is None or not gradient.any()


def snapshot(model):
    return {
        "values": {
            name: (id(value), value.clone(), value._version) for name, value in model.state_dict(keep_vars=True).items()
        },
        "flags": {name: value.requires_grad for name, value in model.named_parameters()},
        "grads": {name: None if value.grad is None else value.grad.clone() for name, value in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
    }


def assert_unchanged(before, after):
    assert before["flags"] == after["flags"]
    assert before["modes"] == after["modes"]
    for name, (identity, value, version) in before["values"].items():
        assert after["values"][name][0] == identity
        assert after["values"][name][2] == version
        assert torch.equal(after["values"][name][1], value)
    for name, gradient in before["grads"].items():
        came = after["grads"][name]
        assert came is gradient is None or torch.equal(came, gradient)


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder(), fs.Implicit()])
def test_the_users_module_is_never_modified(adjoint, vectorize):
    model = UsedTwice()
    model.block[0].eval()
    model.head.bias.requires_grad_(False)
    tasks = regression_tasks()
    fs.mse(model, tasks.query[0]).backward()
    before = snapshot(model)
    learner = fs.maml(model, fs.mse, 0.2, 2, adjoint=adjoint, vectorize=vectorize, learns="block.*")
    optimizer = torch.optim.SGD([value for value in learner.parameters() if value.requires_grad], 0.1)
    for _ in range(2):
        learner.meta_loss(tasks).backward()
        optimizer.step()
    learner.adapt(tasks.support[0])
    learner.score(tasks)
    learner.train()
    learner.float()
    assert_unchanged(before, snapshot(model))


def test_adapting_does_not_change_the_learner():
    learner, tasks = fs.maml(UsedTwice(), fs.mse, 0.2, 2), regression_tasks()
    learner.meta_loss(tasks).backward()
    before = snapshot(learner)
    adapted = learner.adapt(tasks.support[0])
    with torch.no_grad():
        for tensor in (*adapted.parameters(), *adapted.buffers()):
            tensor.add_(1.0)
    fs.mse(adapted, tasks.query[0]).backward()
    learner.score(tasks)
    assert_unchanged(before, snapshot(learner))


def test_function_copies_its_parameters():
    start = {"w": torch.tensor([1.0, 2.0]), "index": torch.tensor([0, 1])}
    model = fs.models.Function(lambda p, x: p["w"][p["index"]] * x, start)
    with torch.no_grad():
        model.w.add_(1.0)
    assert start["w"].tolist() == [1.0, 2.0]
    assert model(torch.tensor(2.0)).tolist() == [4.0, 6.0]
    assert not model.index.requires_grad
    assert set(copy.deepcopy(model).state_dict()) == {"w", "index"}


def test_mlp():
    model = fs.models.MLP(3, [40, 40], 2, weight_std=0.01)
    assert [tuple(value.shape) for value in model.parameters()] == [(40, 3), (40,), (40, 40), (40,), (2, 40), (2,)]
    assert all(value.abs().max() <= 0.02 for value in model.parameters())
    assert model[2].weight.std() > 0.005
    assert not model[2].bias.any()
    x = torch.randn(5, 3)
    by_hand = x
    for layer in (model[0], model[2]):
        by_hand = (by_hand @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(model(x), by_hand @ model[4].weight.T + model[4].bias)
    assert isinstance(fs.models.MLP(1, [2], 1, nn.Tanh)[1], nn.Tanh)


def test_models_that_vmap_supports_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*torch.jit.script.*", DeprecationWarning)
        fs.maml(Attentive(), fs.mse, 0.1).meta_loss(regression_tasks())
