"""Another model in this process as teacher. It reads the policy's token ids, so its tokenizer must
be the policy's.

Models of one family often have heads of different sizes, because the rows of the vocabulary are
padded: those beyond the tokenizer stand for no token. Divergences over the vocabulary leave out the
rows of a teacher that the policy's head lacks (`Head.cut`). A teacher with fewer rows is refused:
the policy may sample any of its rows. Left out: sharding the teacher; each rank holds all of it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from critique_rl.policy import load_policy
from critique_rl.trainer.hidden_states import HEAD_TOLERANCE, head_gap, head_of, last_hidden_states
from critique_rl.trainer.teachers.section import KEY, TeacherModel

PROBE = "The answer: 3 + 14 = 17, I'd say.\n\n```x_1```"
"""A text that tokenizers with equal vocabularies may still split otherwise."""
SPECIAL = ("bos_token", "eos_token", "unk_token")
"""Special tokens that must be equal. The padding is masked, so it may differ."""
EFFICIENT_LOADING = "FSDP_CPU_RAM_EFFICIENT_LOADING"
"""Variable by which transformers loads weights on a node's first rank alone, for FSDP to share."""


def load_teacher(
    section: TeacherModel, tokenizer: Any, rows: int, device: torch.device
) -> nn.Module:
    """Load a teacher, frozen and in evaluation mode.

    Args:
        section: which model.
        tokenizer: the policy's.
        rows: of the policy's head.
        device: where it is to read.

    Raises:
        ValueError: it is not there, has another tokenizer or too small a head, or scales its
            logits.
    """
    options: dict[str, Any] = {"dtype": getattr(torch, section.dtype)}
    if section.revision is not None:
        options["revision"] = section.revision
    try:
        with _loaded_whole():
            loaded, teacher_tokenizer = load_policy(section.model, **options)
    except (OSError, ValueError) as error:
        words = " ".join(str(error).split())[:500]
        raise ValueError(f"{KEY}.model: {words}") from error
    refuse_other_tokenizer(section.model, teacher_tokenizer, tokenizer)
    # transformers wraps `to` in a decorator that hides its signature from mypy.
    model: Any = loaded
    model = model.to(device).eval().requires_grad_(False)
    _refuse_head(section.model, model, tokenizer, rows)
    return model


@contextmanager
def _loaded_whole() -> Iterator[None]:
    """Within the block each rank loads all weights, also where FSDP is to share the policy's."""
    before = os.environ.get(EFFICIENT_LOADING)
    os.environ[EFFICIENT_LOADING] = "false"
    try:
        yield
    finally:
        del os.environ[EFFICIENT_LOADING]
        if before is not None:
            os.environ[EFFICIENT_LOADING] = before


# ---- the tokenizer -------------------------------------------------------------------------------


def refuse_other_tokenizer(name: str, teacher: Any, policy: Any) -> None:
    """Refuse a teacher whose tokenizer is not the policy's; warn of another chat template.

    Args:
        name: of the teacher.
        teacher: its tokenizer.
        policy: the policy's tokenizer.

    Raises:
        ValueError: they differ; the message says in what.
    """
    fault = tokenizer_fault(teacher, policy)
    if fault:
        raise ValueError(
            f"{KEY}: {name} has another tokenizer than the policy: {fault}. A teacher reads the "
            "policy's token ids; take one of the policy's family"
        )
    if teacher.chat_template != policy.chat_template:
        warnings.warn(
            f"{KEY}: {name} has another chat template than the policy, whose prompts it reads",
            stacklevel=2,
        )


def tokenizer_fault(teacher: Any, policy: Any) -> str:
    """How a teacher's tokenizer differs from the policy's; "" where token ids mean the same."""
    if len(teacher) != len(policy):
        return f"{len(teacher)} tokens, and the policy's has {len(policy)}"
    known = policy.get_vocab()
    for token, number in teacher.get_vocab().items():
        if token not in known:
            return f"the token {token!r} ({number}), which the policy's lacks"
        if known[token] != number:
            return f"the token {token!r} has the id {number}, in the policy's {known[token]}"
    for special in SPECIAL:
        theirs = getattr(teacher, special)
        ours = getattr(policy, special)
        if theirs != ours:
            return f"its {special} is {theirs!r}, the policy's {ours!r}"
    if teacher.encode(PROBE) != policy.encode(PROBE):
        return f"it splits {PROBE!r} into other tokens"
    return ""


# ---- the head ------------------------------------------------------------------------------------


@torch.no_grad()
def _refuse_head(name: str, model: Any, tokenizer: Any, rows: int) -> None:
    """Refuse a model whose logits are not those of its head, or whose head lacks rows.

    Raises:
        ValueError: its logits are not those of its head, or it has fewer rows than the policy's
            head (`rows`).
    """
    head = head_of(model)
    if len(head.weight) < rows:
        raise ValueError(
            f"{KEY}: the head of {name} has {len(head.weight)} rows and the policy's has {rows}, "
            "so the policy may sample what it cannot read. Cut the policy's padding: "
            f"model.resize_token_embeddings({len(tokenizer)})"
        )
    ids = torch.tensor([tokenizer.encode(PROBE)], device=model.device)
    with last_hidden_states(model) as seen:
        logits = model(input_ids=ids, use_cache=False).logits[0]
    gap = head_gap(head, seen[0][0], logits)
    if gap > HEAD_TOLERANCE:
        raise ValueError(
            f"{KEY}: {name} gives log-probs {gap:.0%} away from those of its head (it "
            "does more with its logits), and divergences are made from the head. Serve it instead: "
            f"{KEY}: {{base_url: ...}}"
        )
