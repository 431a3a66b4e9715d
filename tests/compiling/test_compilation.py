"""The rewrites of a traced graph before it is compiled, and which graphs are not rewritten."""

import pytest
import torch
from torch import nn
from torch._inductor.decomposition import select_decomp_table
from torch.fx.experimental.proxy_tensor import make_fx

import fewstep as fs
from fewstep.compiling.graph_rewrites import simplify
from fewstep.compiling.inductor import _is_light, compiled
from fewstep.tasks import Batch, Task

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))

REDUNDANT = {
    "alias": (lambda x: x.detach() + 2, 1),
    "view without effect": (lambda x: x.view(2, 3) + 2, 1),
    "expand without effect": (lambda x: x.expand(2, 3) + 2, 1),
    "times the number one": (lambda x: torch.ops.aten.mul.Scalar(x, 1) + 2, 1),
    "first power": (lambda x: x.pow(1) + 2, 1),
    "plus zeros": (lambda x: (torch.zeros(3, 2).t().clone(memory_format=torch.contiguous_format) + x) + 2, 1),
    "times ones": (lambda x: (x * torch.ones(2, 1).expand(2, 3)) + 2, 1),
    "times a zeroth power": (lambda x: (x * x.pow(0)) + 2, 1),
    "view of a view": (lambda x: x.view(6).view(3, 2) + 2, 2),
    "permutation of a permutation": (lambda x: x.view(1, 2, 3).permute(1, 2, 0).permute(1, 0, 2) + 2, 3),
    "transposed twice": (lambda x: x.t().t() + 2, 1),
    "unused": (lambda x: [x + 2, x.exp()][0], 1),
}
NEEDED = {
    "another dtype": lambda x: torch.ones(2, 3, dtype=torch.float64) * x,
    "another shape": lambda x: torch.zeros(4, 2, 3) + x,
    "a scaled addition": lambda x: torch.add(torch.zeros(2, 3), x, alpha=3),
    "almost the same": lambda x: x.sum(0, keepdim=True) + x.sum(1, keepdim=True),
    "another number": lambda x: torch.full((2, 3), 2.0) * x + torch.full((2, 3), 1.0),
}


def traced(function, *example):
    return make_fx(function, decomposition_table=select_decomp_table())(*example)


def operations(graph):
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize("case", REDUNDANT)
def test_operations_without_effect_are_removed(case):
    function, needed = REDUNDANT[case]
    graph = traced(function, X)
    assert len(operations(graph)) > needed
    simplify(graph.graph)
    graph.recompile()
    assert len(operations(graph)) == needed, operations(graph)
    torch.testing.assert_close(graph(X), function(X), rtol=0, atol=0)


@pytest.mark.parametrize("case", NEEDED)
def test_operations_with_an_effect_are_kept(case):
    graph = traced(NEEDED[case], X)
    before = operations(graph)
    simplify(graph.graph)
    graph.recompile()
    assert operations(graph) == before
    torch.testing.assert_close(graph(X), NEEDED[case](X), rtol=0, atol=0)


def test_returned_tensors_share_no_more_memory_than_before():
    def outputs(x):
        return [torch.ops.aten.mul.Scalar(x, 1).view(6), x.exp(), x.exp().view(6), x + torch.zeros(2, 3)]

    graph = traced(outputs, X)
    simplify(graph.graph)
    graph.recompile()
    assert len({tensor.data_ptr() for tensor in [X, *graph(X)]}) == 5


def written_to(x):
    return [x.clone().add_(1).mul_(2)]


def by_strides(x):
    return [(x.t() + torch.zeros(3, 2)).as_strided((3, 2), (1, 3)) * 2]


def of_pieces(x):
    first, second = (x * 2).split([1, 2], dim=1)
    return [torch.cat([second, first], dim=1), x.max(dim=1).values, x.new_tensor([1.0, 2.0, 3.0]) * x]


@pytest.mark.parametrize("function", [written_to, by_strides, of_pieces])
def test_compiled_equals_eager_for_any_graph(function):
    for ours, expected in zip(compiled(function, [X])(X), function(X), strict=True):
        torch.testing.assert_close(ours, expected)


def test_products_of_transposed_factors():
    a, b = torch.randn(4, 5, 3), torch.randn(4, 2, 5)
    (ours,) = compiled(lambda a, b: [a.mT @ b.mT], [a, b])(a, b)
    torch.testing.assert_close(ours, a.mT @ b.mT)


def test_compiled_dropout_draws_new_masks():
    x = torch.ones(1000)
    function = compiled(lambda x: [nn.functional.dropout(x, 0.5)], [x])
    (first,), (second,) = function(x), function(x)
    assert set(first.tolist()) == {0.0, 2.0}
    assert not first.equal(second)


def test_compilation_through_public_interfaces(monkeypatch):
    monkeypatch.setattr("fewstep.compiling.inductor.SHORT_CUT", False)
    tasks = fs.tasks.Sinusoids().sample(3, fs.tasks.generator(0, 0))
    model = fs.models.MLP(1, [4], 1)
    eager, ours = (fs.maml(model, fs.mse, 0.1, compile=compile) for compile in (False, True))
    torch.testing.assert_close(ours.meta_gradient(tasks), eager.meta_gradient(tasks))
    for one, two in zip(ours.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize(("examples", "light"), [(10, True), (100_000, False)])
def test_only_graphs_of_small_tensors_are_compiled_with_o1(examples, light, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert _is_light(traced(lambda x: x.topk(1)[0] + 1, torch.zeros(examples, 2)).graph) is light


def test_another_precision_is_compiled_separately():
    torch.manual_seed(0)
    learner = fs.maml(fs.models.MLP(1, [4], 1), fs.mse, inner_lr=0.01, compile=True)
    tasks = fs.tasks.Sinusoids(shots=5).sample(2, torch.Generator().manual_seed(0))
    exact = learner.meta_gradient(tasks)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = learner.meta_gradient(tasks)
    assert len(learner._compiled._compiled) == 2
    assert not torch.equal(rounded.float(), exact)
    torch.testing.assert_close(learner.meta_gradient(tasks), exact)
    assert len(learner._compiled._compiled) == 2


def test_a_loss_on_which_pytorchs_tracer_crashes_is_refused():
    def curvature(model, batch):
        hessian = torch.vmap(torch.func.hessian(lambda x: model(x[None]).sum()))(batch.x)
        return hessian.square().mean()

    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    tasks = Task(*(Batch(torch.randn(2, 4, 2), torch.randn(2, 4, 1)) for _ in range(2)))
    learners = [fs.maml(model, curvature, 0.1, compile=compile) for compile in (False, True)]
    assert learners[0].meta_gradient(tasks).isfinite()
    with pytest.raises(ValueError, match=r"torch\.func\.hessian.*jacrev"):
        learners[1].meta_gradient(tasks)
