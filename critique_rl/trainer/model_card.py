"""What a trained model's card says beyond TRL's own: the method, arm and seed, the critic, what the
run cost, and how it was judged.

TRL writes the card at each checkpoint and push; this adds one section before its versions. Left
out: addresses and keys of critics.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAPER = {
    "title": "Critique-GRPO: Advancing LLM Reasoning with Natural Language and Numerical Feedback",
    "id": "2506.03106",
    "citation": """@article{zhang2025critiquegrpo,
    title        = {{Critique-GRPO: Advancing LLM Reasoning with Natural Language and Numerical Feedback}},
    author       = {Xiaoying Zhang and Yipeng Zhang and Hao Sun and Kaituo Feng and Chaochao Lu and Chao Yang and Helen Meng},
    year         = 2025,
    eprint       = {arXiv:2506.03106},
}""",
}
CARD = "README.md"
MARK, NEXT = "### The run", "### Framework versions"


def section(
    args: Any,
    critic: Any,
    tokens: Mapping[str, float],
    costs: Mapping[str, float],
    about: Mapping[str, Any],
) -> str:
    """The section in Markdown. `args` is a CritiqueGRPOConfig, `about` what the pipeline knows of
    the run, as names and words.
    """
    facts = {
        "method": describe_method(
            args, two_phases=critic is not None or args.refine_column is not None
        ),
        "critic": describe_critic(critic),
        **about,
    }
    spent = [("generated tokens", "generated_tokens"), ("tokens in all", "total_tokens")]
    facts["cost"] = ", ".join(
        [
            *(f"{costs[key]:,} {words}" for words, key in spent),
            f"{costs['flops']:.2g} FLOPs, {costs['usd']:.2f} USD",
        ]
    )
    owners = {
        name.removeprefix("tokens/"): int(value) for name, value in sorted(tokens.items()) if value
    }
    table = [
        "",
        "| tokens of | |",
        "|---|---|",
        *(f"| {name.replace('_', ' ')} | {value:,} |" for name, value in owners.items()),
    ]
    return "\n".join(
        [
            MARK,
            "",
            *(f"- {name}: {_plain(words)}" for name, words in facts.items()),
            *(table if owners else []),
            "",
        ]
    )


def _plain(words: Any) -> str:
    """One line that cannot end the list or hold markup."""
    return " ".join(str(words).replace("<", "&lt;").split())


def describe_method(args: Any, two_phases: bool) -> str:
    """The terms of the objective that train, with their weights."""
    terms = [
        f"scalar ({args.credit} credit, weights {args.positive_weight:g} and {args.negative_weight:g}, loss_type {args.loss_type})"
    ]
    if two_phases and args.refine_slots and args.refine_weight:
        terms.append(
            f"{args.refine_weight:g} x refine ({args.refine_ratio}, {args.refine_slots} of {args.num_generations} rows)"
        )
    if args.distill_weight:
        terms.append(
            f"{args.distill_weight:g} x distill ({args.distill_mode} on {args.distill_target}, {args.distill_teacher} teacher)"
        )
    return " + ".join(terms)


def describe_critic(critic: Any) -> str:
    """A critic's kind, its model, and what it knows, where it has them."""
    if critic is None:
        return "none"
    chat = getattr(critic, "chat", None)
    model = getattr(getattr(chat, "endpoint", chat), "model", None)
    knows = getattr(critic, "knows", "nothing")
    words = [
        str(getattr(critic, "name", type(critic).__name__)),
        *([str(model)] if model else []),
        *([f"knows the {knows}"] if knows != "nothing" else []),
    ]
    return ", ".join(words)


def add_section(folder: Path, text: str) -> None:
    """Put the section before the versions of the folder's card (at its end, where it has none), in
    place of one that is there.
    """
    card = folder / CARD
    whole = card.read_text(encoding="utf-8")
    before, _, rest = whole.partition(NEXT)
    before = before.partition(MARK)[0].rstrip()
    card.write_text(
        f"{before}\n\n{text}\n{NEXT}{rest}" if rest else f"{before}\n\n{text}", encoding="utf-8"
    )
