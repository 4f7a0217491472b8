"""Tokens by owner, FLOPs and dollars by hand, and the budgets over them."""

import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.costs import Prices, costs

TOKENS = {
    "tokens/rollout": 100,
    "tokens/rollout_prompt": 40,
    "tokens/refinement": 20,
    "tokens/refinement_prompt": 60,
    "tokens/critic_prompt": 300,
    "tokens/critic_completion": 50,
    "tokens/teacher": 30,
    "tokens/trained": 400,
    "tokens/scored": 200,
    "tokens/evaluation": 999,
}


def test_costs_add_up_by_owner() -> None:
    spent = costs(TOKENS, 0.5, 10, Prices(prompt=1.0, completion=4.0, training=3.0))
    assert spent["generated_tokens"] == 120
    assert (
        spent["total_tokens"] == 600
    )  # 120 + 100 prompts + 350 critic + 30 teacher; neither evaluation nor second passes
    assert spent["flops"] == 10 * (2 * (120 + 130 + 200) + 6 * 400)
    assert spent["usd"] == pytest.approx(0.5 + (4 * 120 + 1 * (130 + 200) + 3 * 400) / 1e6)


def pipeline(**sections):
    return parse_pipeline(
        "p", {"task": {"name": "lab/chain"}, "policy": {"model": "lab"}, **sections}
    ).arms["scalar"]


def test_a_budget_is_of_one_thing() -> None:
    assert pipeline(budget={"total_tokens": 100}).budget.limit == ("total_tokens", 100)
    assert pipeline(budget={"optimizer_steps": 100}).budget.limit is None
    with pytest.raises(ConfigError, match="expected one of them"):
        pipeline(budget={"total_tokens": 100, "generated_tokens": 100})
    with pytest.raises(ConfigError, match="above 0"):
        pipeline(budget={"usd": 0})


def test_a_budget_in_dollars_needs_prices() -> None:
    with pytest.raises(ConfigError, match="needs prices"):
        pipeline(budget={"usd": 1.5})
    assert pipeline(budget={"usd": 1.5}, prices={"completion": 0.6}).budget.limit == ("usd", 1.5)
