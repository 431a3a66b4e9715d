"""CUDA: meta-steps recorded as graphs, and their requirements. What does not need a GPU is tested without one."""

import copy
import gc
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import fewstep as fs
from fewstep.compiling.garbage import without_garbage_collection
from fewstep.experiments.catalogue import EXPERIMENTS
from fewstep.experiments.runs import Run
from fewstep.experiments.training import Training
from fewstep.models import Conv4
from fewstep.models.second_order import normalization, pooling, products
from fewstep.tasks import Batch, Episodes, Sinusoids, Task

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

METHODS = ["maml", "fomaml", "anil", "boil", "meta-sgd", "maml++", "reptile", "imaml", "cavia", "context", "meta-lstm"]


def learner_of(method, compile, **options):
    config = replace(EXPERIMENTS[f"glyphs-5way-1shot-{method}"].config, filters=4, **options)
    torch.manual_seed(0)
    return config.learner(compile)


def episodes(seed, tasks=3):
    generator = torch.Generator().manual_seed(seed)
    return Episodes(fs.datasets.glyphs("test"), 5, 1, 1).sample(tasks, generator)


def gradients(learner):
    return [None if value.grad is None else value.grad.clone() for value in learner.parameters()]


class ReadBack(TorchDispatchMode):
    """Records the operations whose result, or its shape, a program has to wait for."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        masked = name.startswith("index") and any(
            torch.is_tensor(mask) and mask.dtype in (torch.bool, torch.uint8) for mask in args[1] or ()
        )
        if (
            name in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "lift_fresh", "lift_fresh_copy")
            or masked
        ):
            self.found.append(name)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", METHODS)
def test_a_meta_step_reads_no_numbers_back(method):
    learner, tasks = learner_of(method, False), episodes(0)
    learner.meta_gradient(tasks)  # makes the first check
    with ReadBack() as read_back:
        learner.meta_gradient(tasks)
    assert read_back.found == []


def test_reading_numbers_back_is_noticed():
    x = torch.ones(3)
    with ReadBack() as read_back:
        x.sum().item(), x[x > 0], x.nonzero()
    assert read_back.found == ["_local_scalar_dense", "index", "nonzero"]


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("network", [Conv4.omniglot, Conv4.mini_imagenet])
def test_what_a_gpu_fuses_is_the_same_meta_gradient(network, steps, monkeypatch):
    torch.manual_seed(0)
    model = network(3, filters=4)
    size = 3, model.in_channels, model.image_size, model.image_size
    tasks = Task(*(Batch(torch.rand(2, *size), torch.arange(3).expand(2, -1)) for _ in range(2)))
    tasks = tasks.to("cpu", torch.float64)
    learner = fs.maml(model, fs.cross_entropy, 0.1, steps).double()
    loss = learner.meta_gradient(tasks)
    expected = [loss, *(value.grad for value in learner.parameters() if value.grad is not None)]
    for module in normalization, pooling:
        monkeypatch.setattr(module, "fused", lambda x: True)
    traced = {}

    def through_a_trace(function, example):
        traced["graph"] = make_fx(function)(*example)
        return traced["graph"]

    monkeypatch.setattr("fewstep.compiling.compiled_gradient.compiled", through_a_trace)
    monkeypatch.setattr("fewstep.learner.meta_learner.compiler_missing", lambda: False)
    compiled = fs.maml(model, fs.cross_entropy, 0.1, steps, compile=True, vectorize=True).double()
    found = [compiled.meta_gradient(tasks), *(v.grad for v in compiled.parameters() if v.grad is not None)]
    torch.testing.assert_close(found, expected)
    assert not any("max_pool" in str(node.target) for node in traced["graph"].graph.nodes)


def test_long_runs_are_fused_on_a_gpu_and_short_ones_recorded():
    training = Training(device="cuda", compile=False)
    assert (training.compiles(60_000), training.compiles(4_000)) == (True, "record")
    assert replace(training, fuse_from=0).compiles(1) is True
    assert (Training().compiles(1), replace(Training(), compile=False).compiles(60_000)) == (True, False)


@needs_gpu
@pytest.mark.parametrize("few_rows", [0, 10**9], ids=["by kernels", "by products"])
@pytest.mark.parametrize("compile", [False, "record"], ids=["eager", "recorded"])
@pytest.mark.parametrize("method", METHODS)
def test_a_meta_gradient_is_that_of_the_cpu(method, compile, few_rows, monkeypatch):
    monkeypatch.setitem(products.FEW_ROWS, "cuda", few_rows)
    here, there = learner_of(method, False).double(), learner_of(method, compile).to("cuda", torch.float64)
    for seed in range(3):
        tasks = episodes(seed).to("cpu", torch.float64)
        here.zero_grad()
        there.zero_grad()
        expected = here.meta_gradient(tasks)
        torch.testing.assert_close(there.meta_gradient(tasks.to("cuda")).cpu(), expected)
        for one, other in zip(here.parameters(), there.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            if one.grad is not None:
                torch.testing.assert_close(other.grad.cpu(), one.grad)
                with torch.no_grad():
                    one -= 0.01 * one.grad
                    other.copy_(one)


@needs_gpu
@pytest.mark.parametrize("vectorize", [True, False], ids=["at once", "side by side"])
@pytest.mark.parametrize("method", ["maml", "anil", "meta-sgd", "maml++"])
def test_a_fused_meta_gradient_is_that_of_the_cpu(method, vectorize, monkeypatch):
    here, there = learner_of(method, False).double(), learner_of(method, True).to("cuda", torch.float64)
    there._each.vmaps = vectorize
    for seed in range(2):
        tasks = episodes(seed).to("cpu", torch.float64)
        here.zero_grad()
        there.zero_grad()
        expected = here.meta_gradient(tasks)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*without fusing")
            torch.testing.assert_close(there.meta_gradient(tasks.to("cuda")).cpu(), expected)
        for one, other in zip(here.parameters(), there.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            if one.grad is not None:
                torch.testing.assert_close(other.grad.cpu(), one.grad)


@needs_gpu
@pytest.mark.parametrize("compile", [False, "record", True], ids=["eager", "recorded", "fused"])
@pytest.mark.parametrize("network", [Conv4.omniglot, Conv4.mini_imagenet])
def test_single_precision_is_as_accurate_as_on_a_cpu(network, compile, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")
    torch.manual_seed(0)
    model = network(5, filters=16)
    size = model.in_channels, model.image_size, model.image_size
    labels = torch.arange(5).expand(3, -1)
    tasks = Task(*(Batch(torch.rand(3, 5, *size), labels) for _ in range(2)))
    exact = fs.maml(copy.deepcopy(model).double(), fs.cross_entropy, 0.05, steps=2)
    exact.meta_gradient(tasks.to("cpu", torch.float64))
    learner = fs.maml(model, fs.cross_entropy, 0.05, steps=2, compile=compile).cuda()
    learner.meta_gradient(tasks.to("cuda"))
    for one, other in zip(exact.parameters(), learner.parameters(), strict=True):
        if one.grad is not None:
            assert (other.grad.cpu() - one.grad).norm() < 1e-3 * one.grad.norm()


@needs_gpu
def test_a_step_that_cannot_be_fused_is_recorded_with_a_warning(monkeypatch):
    def refuse(*args):
        raise NotImplementedError("no such operation")

    monkeypatch.setattr("fewstep.compiling.fused.compiled", refuse)
    learner, tasks = learner_of("maml", True).cuda(), episodes(0).to("cuda")
    with pytest.warns(UserWarning, match="without fusing its kernels: NotImplementedError: no such operation"):
        learner.meta_gradient(tasks)
    assert learner._compiled._compiled


@needs_gpu
def test_gradients_of_recorded_meta_steps_add_up():
    learner = learner_of("maml", "record").to("cuda", torch.float64)
    first, second = (episodes(seed).to("cuda", torch.float64) for seed in (0, 1))
    apart = []
    for tasks in (first, second):
        learner.zero_grad()
        learner.meta_gradient(tasks)
        apart.append(gradients(learner))
    learner.zero_grad()
    learner.meta_gradient(first)
    loss = learner.meta_loss(second)
    loss.backward()
    for value, *parts in zip(learner.parameters(), *apart, strict=True):
        if value.grad is not None:
            torch.testing.assert_close(value.grad, sum(parts))


@needs_gpu
@pytest.mark.parametrize("adjoint", [fs.Unrolled(), fs.Recomputed(), fs.FirstOrder()])
def test_the_recorded_sinusoid_is_that_of_the_cpu(adjoint):
    model = fs.models.MLP(1, [40, 40], 1).double()
    tasks = Sinusoids(shots=5).sample(25, torch.Generator().manual_seed(0)).to("cpu", torch.float64)
    found = []
    for device in ("cpu", "cuda"):
        learner = fs.maml(
            copy.deepcopy(model),
            fs.mse,
            0.01,
            steps=3,
            adjoint=adjoint,
            compile="record" if device == "cuda" else False,
        )
        learner.to(device)
        learner.meta_gradient(tasks.to(device))
        found.append([value.cpu() for value in gradients(learner)])
    torch.testing.assert_close(found[1], found[0])


@needs_gpu
def test_other_shapes_are_recorded_separately():
    learner = learner_of("maml", "record").cuda()
    for tasks in (2, 5, 2):
        expected = learner_of("maml", False).cuda().meta_gradient(episodes(tasks, tasks).to("cuda"))
        torch.testing.assert_close(learner.meta_gradient(episodes(tasks, tasks).to("cuda")), expected)


@needs_gpu
def test_a_loss_that_reads_numbers_back_is_refused():
    def loss(model, batch):
        value = fs.cross_entropy(model, batch)
        return value * 2 if value.item() > 0 else value

    learner = fs.maml(Conv4(1, 5, 4, 28), loss, 0.1, vectorize=False, compile="record").cuda()
    with pytest.raises(RuntimeError, match=r"CUDA graph.*\.item\(\).*compile=False"):
        learner.meta_gradient(episodes(0).to("cuda"))


@needs_gpu
def test_dropout_differs_from_replay_to_replay():
    model = nn.Sequential(nn.Linear(1, 64), nn.Dropout(0.5), nn.Linear(64, 1))
    learner = fs.maml(model, fs.mse, 0.1, compile="record").cuda()
    tasks = Sinusoids(shots=5).sample(4).to("cuda")
    assert len({learner.meta_gradient(tasks).item() for _ in range(5)}) == 5
    assert all(check.stochastic for check in learner._checks.values())


@needs_gpu
def test_collecting_a_learner_does_not_break_a_recording():
    tasks, model = Sinusoids(shots=5).sample(4).to("cuda"), fs.models.MLP(1, [8], 1)
    earlier = fs.maml(model, fs.mse, 0.1, compile="record").cuda()
    earlier.meta_gradient(tasks)
    held = [[earlier]]
    held[0].append(held[0])  # only the garbage collector frees it
    del earlier

    def loss(model, batch):
        if torch.cuda.is_current_stream_capturing():
            held.clear()
        return fs.mse(model, batch)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        assert fs.maml(model, loss, 0.1, compile="record").cuda().meta_gradient(tasks).isfinite()
    finally:
        gc.set_threshold(*threshold)


def test_no_garbage_is_collected_while_a_graph_is_recorded():
    assert gc.isenabled()
    with without_garbage_collection():
        assert not gc.isenabled()
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


@needs_gpu
@pytest.mark.parametrize("rotations", [False, True])
def test_a_gpu_draws_the_same_episodes(rotations):
    source = Episodes(fs.datasets.glyphs("test"), 5, 1, 2, rotations)
    here, there = (s.sample(7, torch.Generator().manual_seed(1)) for s in (source, source.to("cuda")))
    assert there.support.x.is_cuda
    for ours, expected in ((there.support, here.support), (there.query, here.query)):
        torch.testing.assert_close(ours.x.cpu(), expected.x)
        assert torch.equal(ours.y.cpu(), expected.y)


@needs_gpu
@pytest.mark.parametrize("method", ["maml", "protonet", "maml++", "mann", "fine-tuning"])
def test_trains_on_a_gpu_resumes_and_is_tested_on_a_cpu(method, tmp_path):
    name = f"glyphs-5way-1shot-{method}"
    config = replace(EXPERIMENTS[name].config, filters=8, iterations=6, meta_batch=4)
    training = Training(device="cuda", fuse_from=10**9, validate_every=3, validation_tasks=4, log_every=1)
    whole, parts = (Run.create(name, config, training, tmp_path / folder) for folder in ("whole", "parts"))
    whole.train(progress=False)
    parts.train(progress=False, until=3)
    parts.train(progress=False)
    for ours, expected in zip(parts.folder.metrics(), whole.folder.metrics(), strict=True):
        assert ours == pytest.approx(expected, rel=1e-3, abs=0.02)
    results = Run(tmp_path / "parts", device="cpu").evaluate(tasks=4)
    assert results["iterations"] == 6
    assert results["trained_on"] == [torch.cuda.get_device_name()]
    assert results["processor"] not in results["trained_on"]
    assert results["training"]["device"] == "cuda"


@needs_gpu
def test_an_adapted_model_is_that_of_the_cpu():
    task = Task(Batch(torch.randn(5, 1, 28, 28), torch.arange(5)), Batch(torch.randn(5, 1, 28, 28), torch.arange(5)))
    learner = learner_of("maml", False).double()
    expected = learner.adapt(task.to("cpu", torch.float64).support)(task.query.x.double())
    ours = learner.cuda().adapt(task.to("cuda", torch.float64).support)(task.query.x.double().cuda())
    torch.testing.assert_close(ours.cpu(), expected)


@needs_gpu
def test_recordings_of_one_learner_share_their_memory():
    learner = learner_of("maml", "record").cuda()
    others = [learner_of("maml", False).cuda() for _ in range(2)]
    sizes = (6, 5, 4, 6, 5, 4)
    found = [learner.meta_gradient(episodes(n, n).to("cuda")) for n in sizes]
    torch.testing.assert_close(found, [others[n % 2].meta_gradient(episodes(n, n).to("cuda")) for n in sizes])
    pool = learner._compiled._memory
    assert len(learner._compiled._compiled) == 3
    assert sum(tuple(part["segment_pool_id"]) == tuple(pool) for part in torch.cuda.memory_snapshot()) > 0
