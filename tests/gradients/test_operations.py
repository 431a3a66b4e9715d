"""The second derivative of every operation is correct, or an error says that there is none."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import pytest
import torch
from gradients.operations.case import Case
from gradients.operations.claims import (
    AS_PYTORCH_HAS_IT,
    CASES,
    FIRST_ORDER_ONLY,
    NO_FORWARD_MODE,
    NOT_UNDER_VMAP,
    PAGE,
    REFUSED,
    REPLACED,
    claimed,
    page,
)
from gradients.operations.differences import Problem

from fewstep.adaptation.operations import explained, twice_differentiable

pytestmark = pytest.mark.usefixtures("double")

VMAP = ("vmap", "vmap_vjp", "vmap_gradient")
FORWARD = ("dual", "jvp")
RTOL = 2e-6


def lacking(case: Case) -> set[str]:
    """The modes for which an error is claimed."""
    ways: set[str] = set()
    if claimed(case, FIRST_ORDER_ONLY):
        ways |= {"loop", "vmap", "vmap_vjp", *FORWARD, "vmap_jvp"}
    if claimed(case, NOT_UNDER_VMAP):
        ways |= {"vmap", "vmap_vjp", "vmap_jvp"}
    if claimed(case, NO_FORWARD_MODE):
        ways |= {*FORWARD, "vmap_jvp"}
    return ways


def is_right(problem: Problem, way: str, expected: list[torch.Tensor]) -> bool:
    found = getattr(problem, way)()
    if way == "vmap_gradient":
        expected = [torch.zeros_like(x) for x in expected]
    return all((a - b).abs().max() <= RTOL * (1 + b.abs().max()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_second_derivative(case: Case) -> None:
    problem = Problem(case, twice_differentiable)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if claimed(case, REFUSED):
            with pytest.raises((ValueError, NotImplementedError), match=case.name.rpartition(".")[2]):
                problem.expected()
            return
        expected, lacks = problem.expected(), lacking(case)
        for way in ("loop", *FORWARD, *VMAP, "vmap_jvp"):
            if way in lacks:
                with pytest.raises((RuntimeError, ValueError)) as caught:
                    getattr(problem, way)()
                if way == "loop":
                    assert explained(caught.value) is not None
            elif way != "vmap_gradient" or not claimed(case, NOT_UNDER_VMAP | FIRST_ORDER_ONLY):
                assert is_right(problem, way, expected), way


@pytest.mark.parametrize(
    "case", [c for c in CASES if claimed(c, REPLACED) and str(c) not in AS_PYTORCH_HAS_IT], ids=str
)
def test_replaced_operations_fail_without_their_replacement(case: Case) -> None:
    """A replacement should be removed once PyTorch is correct."""
    right, itself = Problem(case, twice_differentiable), Problem(case, nullcontext)
    itself.points, itself.directions = right.points, right.directions
    expected = right.expected()

    def holds(way: str) -> bool:
        try:
            return is_right(itself, way, expected)
        except (RuntimeError, ValueError):
            return False

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not all(holds(way) for way in ("loop", *FORWARD, *VMAP, "vmap_jvp"))
        for point in right.points:  # and the results are PyTorch's
            values = []
            for problem in (right, itself):
                torch.manual_seed(0)
                values.append(problem.value(*point))
            torch.testing.assert_close(*values, rtol=1e-10, atol=1e-12)


def test_every_claim_is_about_a_case() -> None:
    names = {case.name for case in CASES} | {str(case) for case in CASES}
    claims = [*REPLACED, *AS_PYTORCH_HAS_IT, *FIRST_ORDER_ONLY, *NO_FORWARD_MODE, *NOT_UNDER_VMAP, *REFUSED]
    assert not set(claims) - names
    assert len({str(case) for case in CASES}) == len(CASES)


def test_the_page_says_what_is_tested() -> None:
    assert PAGE.read_text() == page(), "run: PYTHONPATH=tests python -m gradients.operations.claims"
