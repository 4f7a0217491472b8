"""Learning-rate schedules that run over what was spent of a budget, not over steps.

Arms whose steps differ in size then decay alike. A budget is (kind of `costs.KINDS`, limit).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

Budget = tuple[str, float]
Rate = Callable[[int], float]
"""Position of a schedule -> factor on the learning rate."""
Costs = Callable[[], dict[str, float]]
"""All that was spent so far, by kind."""


def schedule_position(budget: Budget, spent: float) -> int:
    """The position of a schedule after `spent`, in whole steps.

    Tokens count as they are, dollars and FLOPs in millionths of the limit.
    """
    kind, limit = budget
    if kind.endswith("tokens"):
        return int(spent)
    return int(1e6 * spent / limit)


def follow_budget(scheduler: Any, budget: Budget, costs: Costs) -> None:
    """Have a scheduler's position be what was spent.

    Args:
        scheduler: torch's LambdaLR, made for `schedule_position(budget, limit)` steps.
        budget: kind and limit.
        costs: all that was spent so far, by kind.
    """
    # Partials, because a scheduler's state holds the attributes of other callables.
    scheduler.lr_lambdas = [
        partial(_rate_at_spent, rate, budget, costs) for rate in scheduler.lr_lambdas
    ]


def _rate_at_spent(rate: Rate, budget: Budget, costs: Costs, _step: int) -> float:
    kind, limit = budget
    return rate(schedule_position(budget, min(costs()[kind], limit)))
