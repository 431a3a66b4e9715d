"""Different rules for different parameters, and moments that are carried through groups and chains."""

import copy

import pytest
import torch
from gradients.checks import SmoothNetwork, assert_matches_differences, assert_same, meta_gradient, regression_tasks

import fewstep as fs

pytestmark = pytest.mark.usefixtures("double")


def trainable(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def test_each_group_is_updated_by_its_rule():
    params = {name: torch.randn(2) for name in ("body.w", "head.w", "body.b", "head.b")}
    grads = [{name: torch.randn(2) for name in params} for _ in range(4)]
    rule = fs.PerParameter({"head.*": fs.Adam(0.1), "*": fs.SGD(0.2, momentum=0.5)})
    ours, state = params, rule.init(params)
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    head, body = ([leaves[name] for name in params if name.startswith(part)] for part in ("head", "body"))
    optimizers = [torch.optim.Adam(head, 0.1), torch.optim.SGD(body, 0.2, momentum=0.5)]
    for step, gradient in enumerate(grads):
        ours, state = rule.update(ours, gradient, state, step, torch.tensor(0.0))
        assert list(ours) == list(params)
        for name, value in leaves.items():
            value.grad = gradient[name]
        for optimizer in optimizers:
            optimizer.step()
        for name, value in leaves.items():
            torch.testing.assert_close(ours[name], value.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("adapts", ["*", ["*", "!second.*"]])
def test_one_rule_for_all_is_that_rule(adapts):
    tasks, model = regression_tasks(), SmoothNetwork()
    plain = fs.MetaLearner(model, fs.mse, rule=fs.Adam(0.1), steps=2, adapts=adapts)
    grouped = fs.PerParameter({"first.*": fs.Adam(0.1), "*": fs.Adam(0.1)})
    grouped = fs.MetaLearner(model, fs.mse, rule=grouped, steps=2, adapts=adapts)
    assert_same(meta_gradient(grouped, tasks), meta_gradient(plain, tasks), atol=1e-13)


def test_learned_rates_per_group():
    rule = fs.PerParameter({"head.*": fs.SGD(fs.LearnedRate(0.3)), "*": fs.LearnedRates(body(), 0.1, "tensor")})
    learner = fs.MetaLearner(SmoothNetwork(), fs.mse, rule=rule, steps=2)
    names = {name for name, _ in learner.named_parameters() if name.startswith("rule.")}
    assert names == {"rule.0.lr.value", *(f"rule.1.rates.{name.replace('.', '/')}" for name in body())}
    assert_matches_differences(learner, regression_tasks())


def body():
    return {name: value for name, value in trainable(SmoothNetwork()).items() if not name.startswith("head")}


def test_a_rule_shared_by_groups_learns_one_rate():
    shared = fs.LearnedRate(0.2)
    rule = fs.PerParameter({"head.*": fs.Adam(shared, eps=1e-2), "*": fs.SGD(shared)})
    learner = fs.MetaLearner(SmoothNetwork(), fs.mse, rule=rule, steps=2)
    assert len(list(rule.parameters())) == 1
    assert_matches_differences(learner, regression_tasks())


WRAPPED = {
    "chain": lambda adam, params: fs.chain(fs.scale_by(1.0), adam),
    "group": lambda adam, params: fs.PerParameter({"*": adam}),
    "chain in a group": lambda adam, params: fs.PerParameter({"*": fs.chain(fs.scale_by(1.0), adam)}),
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_moments_are_carried_through(wrap):
    model = SmoothNetwork()
    make = lambda: fs.CarriedAdam(trainable(model), 0.05)  # noqa: E731
    plain = fs.reptile(model, fs.mse, make(), 3)
    wrapped = fs.reptile(model, fs.mse, WRAPPED[wrap](make(), trainable(model)), 3)
    for _ in range(2):
        tasks = regression_tasks()
        assert_same(meta_gradient(wrapped, tasks), meta_gradient(plain, tasks), atol=1e-13)
    kept = {name.rpartition("rule.")[2].split(".")[-1]: value for name, value in wrapped.rule.state_dict().items()}
    for name, value in plain.rule.state_dict().items():
        torch.testing.assert_close(kept[name], value, rtol=0, atol=1e-13)
    assert kept["count"] == 6
    again = fs.reptile(model, fs.mse, WRAPPED[wrap](make(), trainable(model)), 3)
    again.load_state_dict(copy.deepcopy(wrapped.state_dict()))
    torch.testing.assert_close(again.score(tasks), wrapped.score(tasks), rtol=0, atol=0)


def test_one_group_carries_and_the_other_does_not():
    model, head = SmoothNetwork(), {"head.weight": torch.zeros(1, 2), "head.bias": torch.zeros(1)}
    rule = fs.PerParameter({"head.*": fs.CarriedAdam(head, 0.05), "*": fs.Adam(0.05)})
    learner = fs.reptile(model, fs.mse, rule, 3)
    learner.meta_gradient(regression_tasks())
    assert learner.rule.rules[0].count == 3


def test_without_carry_no_task_is_adapted_to_in_advance():
    for rule in (fs.chain(fs.SGD(0.1)), fs.PerParameter({"*": fs.SGD(0.1)})):
        assert rule.carry is None


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"head.*": fs.SGD(0.1)}, r"no pattern of \['head\.\*'\] matches.*first\.weight.*Add a pattern, such as '\*'"),
        ({"tail.*": fs.SGD(0.1), "*": fs.SGD(0.1)}, r"'tail\.\*' matches none of the adapted.*head\.weight"),
        ({"*": fs.SGD(0.1), "head.*": fs.Adam(0.1)}, r"'head\.\*' gets no parameter.*'head\.bias': '\*'.*special"),
    ],
)
def test_patterns_that_do_not_fit(rules, words):
    with pytest.raises(ValueError, match=words):
        fs.MetaLearner(SmoothNetwork(), fs.mse, rule=fs.PerParameter(rules), steps=1)


@pytest.mark.parametrize(
    ("rules", "error", "words"),
    [
        ({}, ValueError, r"expected a dictionary.*got \{\}"),
        ([fs.SGD(0.1)], ValueError, r"expected a dictionary"),
        ({"!head.*": fs.SGD(0.1)}, ValueError, r"without '!'.*got '!head\.\*'"),
        ({"*": 0.1}, TypeError, r"'\*' needs a rule.*got float"),
        ({"*": fs.SGD}, TypeError, r"'\*' needs a rule.*got the class GradientDescent"),
        ({"*": fs.clip_by_norm(1.0)}, TypeError, r"'\*' needs a rule"),
    ],
)
def test_other_arguments_than_a_dictionary_of_rules_are_refused(rules, error, words):
    with pytest.raises(error, match=words):
        fs.PerParameter(rules)
