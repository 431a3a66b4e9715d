"""Weight decay as an L2 penalty."""

from __future__ import annotations

from torch import nn

from fewstep.adaptation.rules.arithmetic import plus
from fewstep.adaptation.rules.rates import is_zero, rate_at
from fewstep.adaptation.rules.rule import Params


def decayed(rule: nn.Module, params: Params, grads: Params, step: int) -> Params:
    """∇L + λ·φ, where λ is the ``weight_decay`` of the rule, for the parameters in ``params``."""
    grads = {name: grads[name] for name in params}
    if is_zero(rule.weight_decay):
        return grads
    return plus(grads, params, rate_at(rule, "weight_decay", step))
