"""Metric- and memory-based learners: their formulas, recomputed one number at a time in NumPy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fewstep.baselines import (
    MANN,
    FullContext,
    LRUMemory,
    MatchingNetwork,
    NearestNeighbour,
    PrototypicalNetwork,
    RelationModule,
    RelationNetwork,
    SiameseNetwork,
)
from fewstep.baselines.lstm_cell import LSTMCell
from fewstep.tasks import Batch, Task

WAYS, FEATURES = 3, 4
LABELS = [2, 0, 1, 0, 2, 0]  # in no order, with 3, 1 and 2 shots

pytestmark = pytest.mark.usefixtures("double")


def encoder() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(9, FEATURES), nn.Tanh())


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 1, 3, 3)


def support(weight: list[float] | None = None) -> Batch:
    return Batch(images(6), torch.tensor(LABELS), None if weight is None else torch.tensor(weight))


def features(learner, x: torch.Tensor) -> np.ndarray:
    layer = learner.encoder[1]
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return np.stack([np.tanh(weight @ image.reshape(-1) + bias) for image in x.numpy()])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def distance(kind: str, a: np.ndarray, b: np.ndarray) -> float:
    return ((a - b) ** 2).sum() if kind == "euclidean" else 1 - cosine(a, b)


def agree(found: torch.Tensor, expected) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(-1)


WEIGHTS = [None, [1.0, 2.0, 1.0, 0.5, 0.0, 3.0]]


@pytest.mark.parametrize("kind", ["euclidean", "cosine"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_prototypes(kind: str, weight):
    learner, batch, x = PrototypicalNetwork(encoder(), WAYS, kind), support(weight), images(5)
    shown, asked = features(learner, batch.x), features(learner, x)
    counts = weight or [1.0] * 6
    expected = np.zeros((5, WAYS))
    for k in range(WAYS):
        members = [i for i in range(6) if LABELS[i] == k]
        prototype = sum(counts[i] * shown[i] for i in members) / sum(counts[i] for i in members)
        for q in range(5):
            expected[q, k] = math.exp(-distance(kind, asked[q], prototype))
    agree(probabilities(learner.adapt(batch)(x)), expected / expected.sum(1, keepdims=True))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_matching(weight):
    learner, batch, x = MatchingNetwork(encoder(), WAYS), support(weight), images(5)
    shown, asked = features(learner, batch.x), features(learner, x)
    expected = np.zeros((5, WAYS))
    for q in range(5):
        for i, label in enumerate(LABELS):
            expected[q, label] += (weight or [1.0] * 6)[i] * math.exp(cosine(asked[q], shown[i]))
        expected[q] /= expected[q].sum()
    agree(learner.adapt(batch)(x).exp(), expected)


def lstm(cell: LSTMCell, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gates = cell.gates.weight.detach().numpy() @ np.concatenate([x, h]) + cell.gates.bias.detach().numpy()
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def test_full_context():
    context = FullContext(FEATURES, steps=3)
    learner, batch, x = MatchingNetwork(encoder(), WAYS, context), support(), images(2)
    shown, asked = features(learner, batch.x), features(learner, x)
    embedded = shown.copy()
    for cell, order in ((context.forwards, range(6)), (context.backwards, range(5, -1, -1))):
        h = c = np.zeros(FEATURES)
        for i in order:
            h, c = lstm(cell, shown[i], h, c)
            embedded[i] += h
    expected = np.zeros((2, WAYS))
    for q in range(2):
        h = c = np.zeros(FEATURES)
        for _ in range(3):
            attention = softmax(embedded @ h)
            read = sum(attention[i] * embedded[i] for i in range(6))
            h, c = lstm(context.attending, np.concatenate([asked[q], read]), h, c)
            h = h + asked[q]
        for i, label in enumerate(LABELS):
            expected[q, label] += math.exp(cosine(h, embedded[i]))
        expected[q] /= expected[q].sum()
    agree(learner.adapt(batch)(x).exp(), expected)


def test_lstm_cell_is_pytorchs():
    ours, theirs = LSTMCell(3, 4), nn.LSTMCell(3, 4)
    with torch.no_grad():
        theirs.weight_ih.copy_(ours.gates.weight[:, :3])
        theirs.weight_hh.copy_(ours.gates.weight[:, 3:])
        theirs.bias_ih.copy_(ours.gates.bias)
        theirs.bias_hh.zero_()
    x, state = torch.randn(5, 3), (torch.randn(5, 4), torch.randn(5, 4))
    torch.testing.assert_close(ours(x, state), theirs(x, state))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_relation(weight):
    relation = nn.Sequential(nn.Flatten(), nn.Linear(2 * 2 * 9, 1), nn.Sigmoid(), nn.Flatten(0))
    learner = RelationNetwork(nn.Conv2d(1, 2, 1), relation, WAYS)
    batch, query = support(weight), Batch(images(2), torch.tensor([1, 2]))
    kernel, bias = (value.detach().numpy() for value in learner.encoder.parameters())
    shown, asked = ([kernel[:, 0] * image + bias[:, None, None] for image in x.numpy()] for x in (batch.x, query.x))
    w, b = (value.detach().numpy() for value in learner.relation.parameters())
    expected, error = np.zeros((2, WAYS)), 0.0
    for q in range(2):
        for k in range(WAYS):
            total = sum((weight or [1.0] * 6)[i] * shown[i] for i in range(6) if LABELS[i] == k)
            joined = np.concatenate([total, asked[q]])
            expected[q, k] = sigmoid(w[0] @ joined.reshape(-1) + b[0])
            error += (expected[q, k] - (query.y[q].item() == k)) ** 2 / (2 * WAYS)
    agree(learner.adapt(batch)(query.x), expected)
    agree(learner.meta_loss(Task.stack([Task(batch, query)])), error)


def test_relation_module_is_the_papers():
    """Appendix sizes: 64 features before the first linear layer for Omniglot, 64·3·3 for mini-ImageNet."""
    for size, padding, flat in ((5, 1, 64), (19, 0, 576)):
        module = RelationModule(64, size, padding)
        linear = [layer for layer in module if isinstance(layer, nn.Linear)]
        assert [(layer.in_features, layer.out_features) for layer in linear] == [(flat, 8), (8, 1)]
        scores = module(torch.randn(3, 128, size, size))
        assert scores.shape == (3,)
        assert ((scores > 0) & (scores < 1)).all()
    with pytest.raises(ValueError, match="maps of size 3 are too small"):
        RelationModule(64, 3, padding=0)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_siamese(weight):
    learner = SiameseNetwork(encoder(), FEATURES, WAYS)
    batch, query = support(weight), Batch(images(4), torch.tensor([0, 1, 1, 2]), torch.tensor([1.0, 2.0, 1.0, 0.0]))
    shown, asked = features(learner, batch.x), features(learner, query.x)
    alpha, beta = learner.comparison.weight.detach().numpy()[0], learner.comparison.bias.item()
    expected, weights = np.zeros((4, WAYS)), np.zeros(WAYS)
    losses: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for i, label in enumerate(LABELS):
        count = (weight or [1.0] * 6)[i]
        weights[label] += count
        for q in range(4):
            odds = sum(a * abs(u - v) for a, u, v in zip(alpha, asked[q], shown[i], strict=True)) + beta
            expected[q, label] += count * odds
            same = query.y[q].item() == label
            loss = -math.log(sigmoid(odds) if same else 1 - sigmoid(odds))
            losses[same].append((loss, count * query.weight[q].item()))
    agree(learner.adapt(batch)(query.x), expected / weights)
    halves = [sum(value * count for value, count in kind) / sum(count for _, count in kind) for kind in losses.values()]
    agree(learner.meta_loss(Task.stack([Task(batch, query)])), sum(halves) / 2)


@pytest.mark.parametrize("kind", ["euclidean", "cosine"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_nearest_neighbour(kind: str, weight):
    learner, batch, x = NearestNeighbour(encoder(), WAYS, kind), support(weight), images(20)
    shown, asked = features(learner, batch.x), features(learner, x)
    real = [i for i in range(6) if weight is None or weight[i] > 0]
    nearest = [LABELS[min(real, key=lambda i, q=q: distance(kind, asked[q], shown[i]))] for q in range(20)]
    assert learner.adapt(batch)(x).argmax(1).tolist() == nearest
    assert len(set(nearest)) > 1


def test_mann():
    """Section 3.2 of Santoro et al., with everything in plain loops over slots and heads."""
    slots, width, heads, hidden = 7, 3, 2, 5
    memory = LRUMemory(slots, width, heads, decay=0.9)
    memory.gate.data.fill_(0.4)
    learner, batch, x = MANN(encoder(), FEATURES, WAYS, hidden, memory), support(), images(3)
    shown, asked = features(learner, batch.x), features(learner, x)
    gate = sigmoid(0.4)

    def linear(layer: nn.Linear, value: np.ndarray) -> np.ndarray:
        return layer.weight.detach().numpy() @ value + layer.bias.detach().numpy()

    def present(state, example, label):
        h, c, read, M, usage, reads = state
        h, c = lstm(learner.controller, np.concatenate([example, label, read]), h, c)
        keys = np.tanh(linear(learner.keys, h)).reshape(heads, width)
        M, new_usage, new_reads = M.copy(), 0.9 * usage, np.zeros((heads, slots))
        free = sorted(range(slots), key=lambda i: usage[i])[:heads]
        M[free] = 0
        for head in range(heads):
            for i in range(slots):
                write = gate * reads[head, i] + (1 - gate) * (free[head] == i)
                M[i] += write * keys[head]
                new_usage[i] += write
        for head in range(heads):
            new_reads[head] = softmax(np.array([cosine(keys[head], row) for row in M]))
            new_usage += new_reads[head]
        read = np.concatenate([sum(new_reads[head, i] * M[i] for i in range(slots)) for head in range(heads)])
        return (h, c, read, M, new_usage, new_reads), linear(learner.answer, np.concatenate([h, read]))

    state = (np.zeros(hidden), np.zeros(hidden), np.zeros(heads * width), np.full((slots, width), 1e-6))
    state = (*state, np.zeros(slots), np.zeros((heads, slots)))
    last = np.zeros(WAYS)
    for i, label in enumerate(LABELS):
        state, _ = present(state, shown[i], last)
        last = np.eye(WAYS)[label]
    agree(learner.adapt(batch)(x), np.stack([present(state, one, last)[1] for one in asked]))


def test_memory_fills_the_least_used_slots_first():
    memory = LRUMemory(slots=6, width=3, heads=2)
    memory.gate.data.fill_(-50.0)  # writes go only where use is least
    state, keys = memory.blank(), torch.randn(3, 2, 3)
    for step in range(3):
        state, _ = memory(state, keys[step])
    torch.testing.assert_close(state.memory, keys.flatten(0, 1))
    order = state.usage.argsort()
    after, _ = memory(state, torch.ones(2, 3))
    torch.testing.assert_close(after.memory[order[:2]], torch.ones(2, 3))  # the old contents are erased
    torch.testing.assert_close(after.memory[order[2:]], state.memory[order[2:]])
    with pytest.raises(ValueError, match="slots=1 and heads=2"):
        LRUMemory(slots=1, heads=2)
