"""The section that this package adds to TRL's model card: method, arm and seed, critic, cost of the
run, and how it was judged.

TRL writes the card at each checkpoint and push; the section stands before its versions. Left out:
addresses and keys of critics.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from critique_rl.trainer.teachers.section import describe_teacher

PAPER = {
    "title": "Critique-GRPO: Advancing LLM Reasoning with Natural Language and Numerical Feedback",
    "id": "2506.03106",
    "citation": (
        "@article{zhang2025critiquegrpo,\n"
        "    title        = {{Critique-GRPO: Advancing LLM Reasoning with Natural Language and "
        "Numerical Feedback}},\n"
        "    author       = {Xiaoying Zhang and Yipeng Zhang and Hao Sun and Kaituo Feng and "
        "Chaochao Lu and Chao Yang and Helen Meng},\n"
        "    year         = 2025,\n"
        "    eprint       = {arXiv:2506.03106},\n"
        "}"
    ),
}
CARD = "README.md"
HEADING = "### The run"
NEXT_HEADING = "### Framework versions"
"""TRL's heading, before which the section stands."""


def section(
    args: Any,
    critic: Any,
    tokens: Mapping[str, float],
    costs: Mapping[str, float],
    about: Mapping[str, Any],
) -> str:
    """The section in Markdown.

    Args:
        args: The trainer's CritiqueGRPOConfig.
        critic: The trainer's critic, or None.
        tokens: "tokens/<owner>" -> tokens.
        costs: generated_tokens, total_tokens, flops, usd.
        about: Facts that the pipeline adds, such as arm and seed: name -> words.
    """
    two_phases = critic is not None or args.refine_column is not None
    facts = {
        "method": describe_method(args, two_phases),
        "critic": describe_critic(critic),
        **about,
        "cost": _describe_costs(costs),
    }
    lines = [HEADING, ""]
    for name, words in facts.items():
        lines.append(f"- {name}: {_plain(words)}")
    lines += _token_table(tokens)
    lines.append("")
    return "\n".join(lines)


def _describe_costs(costs: Mapping[str, float]) -> str:
    generated = f"{costs['generated_tokens']:,} generated tokens"
    total = f"{costs['total_tokens']:,} tokens in all"
    return f"{generated}, {total}, {costs['flops']:.2g} FLOPs, {costs['usd']:.2f} USD"


def _token_table(tokens: Mapping[str, float]) -> list[str]:
    """Lines of a table of the owners that have tokens; none if there are none."""
    rows = []
    for name, count in sorted(tokens.items()):
        if count:
            owner = name.removeprefix("tokens/").replace("_", " ")
            rows.append(f"| {owner} | {int(count):,} |")
    if not rows:
        return []
    return ["", "| tokens of | |", "|---|---|", *rows]


def _plain(words: Any) -> str:
    # Names of arms and tasks come from users' files: a line break would end the list, and a tag
    # would become markup on the Hub.
    return " ".join(str(words).replace("<", "&lt;").split())


def describe_method(args: Any, two_phases: bool) -> str:
    """The terms of the objective that train, with their weights.

    Args:
        args: The trainer's CritiqueGRPOConfig.
        two_phases: Whether reserved rows are filled after the rollouts.
    """
    weights = f"{args.positive_weight:g} and {args.negative_weight:g}"
    terms = [f"scalar ({args.credit} credit, weights {weights}, loss_type {args.loss_type})"]
    if args.unlikely_advantage:
        terms.append(
            f"an advantage of {args.unlikely_advantage:g} on the {args.unlikely_share:.0%} least "
            "likely tokens"
        )
    if two_phases and args.refine_slots and args.refine_weight:
        source = ""
        if args.swaps_refinements:
            source = f", right rows from the column {args.refine_column}"
        if args.refine_turns > 1:
            source += f", up to {args.refine_turns} turns"
        terms.append(
            f"{args.refine_weight:g} x refine ({args.refine_ratio}, {args.refine_slots} of "
            f"{args.num_generations} rows{source})"
        )
    if args.distill_weight:
        contrast = ""
        if args.distill_contrast != "none":
            contrast = f", against a {args.distill_contrast} critique"
        terms.append(
            f"{args.distill_weight:g} x distill ({args.distill_mode} on {args.distill_target}, "
            f"{describe_teacher(args.distill_teacher)} teacher{contrast})"
        )
    return " + ".join(terms)


def describe_critic(critic: Any) -> str:
    """A critic's kind; for critics that have them, its model and the secrets it knows."""
    if critic is None:
        return "none"
    # An api chat keeps its model in an endpoint; the endpoint's address stays out of the card.
    chat = getattr(critic, "chat", None)
    model = getattr(getattr(chat, "endpoint", chat), "model", None)
    knows = getattr(critic, "knows", "nothing")
    words = [str(getattr(critic, "name", type(critic).__name__))]
    if model:
        words.append(str(model))
    if knows != "nothing":
        words.append(f"knows the {knows}")
    return ", ".join(words)


def add_section(folder: Path, text: str) -> None:
    """Put the section `text` before the versions of the folder's card, or at its end if the card
    has none.
    """
    path = folder / CARD
    card = path.read_text(encoding="utf-8")
    before, _, versions = card.partition(NEXT_HEADING)
    # A section that an earlier call wrote is replaced.
    before = before.partition(HEADING)[0].rstrip()
    card = f"{before}\n\n{text}"
    if versions:
        card += f"\n{NEXT_HEADING}{versions}"
    path.write_text(card, encoding="utf-8")
