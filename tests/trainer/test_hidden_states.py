"""Rows that a teacher reads, slice by slice."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from known_critics import Turns, Words, generated
from lab_trainers import DISTILL, critique_trainer
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from critique_rl.trainer import hidden_states
from critique_rl.trainer.distill import Distillation
from critique_rl.trainer.hidden_states import TermRows

LONGEST = 12


def term_rows_of(contexts: list[int], completions: list[int]) -> TermRows:
    """Rows of these lengths: contexts end, and completions begin, at one column."""
    positions = torch.arange(LONGEST)
    context_mask = (positions >= LONGEST - torch.tensor(contexts).unsqueeze(1)).long()
    completion_mask = (positions < torch.tensor(completions).unsqueeze(1)).long()
    ids = torch.arange(len(contexts)).unsqueeze(1) * 100 + positions
    inputs = {
        "context_ids": ids,
        "context_mask": context_mask,
        "completion_ids": ids + 50,
        "completion_mask": completion_mask,
    }
    return TermRows(inputs, torch.arange(len(contexts)), completion_mask)


@pytest.mark.parametrize("most", [1, 20, 60, math.inf])
def test_slices_have_every_token_once_and_few_positions(most) -> None:
    rows = term_rows_of([12, 3, 7, 3, 1, 9, 12], [2, 12, 0, 4, 1, 9, 12])
    ids, attention = rows.with_context()
    read = torch.zeros_like(attention)
    seen = []
    positions = 0
    for part in rows.slices(attention, most):
        cut = part.cut(ids)
        assert cut.shape == part.cut(attention).shape
        assert cut.numel() <= most or len(part.rows) == 1
        read[part.rows, part.start : part.first + part.length] += 1
        seen += part.rows
        positions += cut.numel()
        # A position predicts the token after it.
        shifted = part.predicting(cut.unsqueeze(-1)).squeeze(-1)
        mask = rows.completion_mask[part.rows, : part.length].bool()
        before = ids[part.rows, part.first - 1 : part.first - 1 + part.length]
        assert torch.equal(shifted[mask], before[mask])
    assert sorted(seen) == list(range(7))
    assert torch.equal(read * attention, attention)
    if most == 1:
        assert positions == attention.sum()
    if most == math.inf:
        assert seen == [4, 2, 3, 0, 1, 5, 6]


def test_a_teacher_reads_the_same_in_slices(tiny_policy, tmp_path, monkeypatch) -> None:
    settings = {**DISTILL, "distill_mode": "full"}
    trainer = critique_trainer(tiny_policy, tmp_path, Turns([0.0] * 8), critic=Words(), **settings)
    output = generated(trainer)
    rows = hidden_states.term_rows(output, "distill_mask")
    teacher = trainer.distillation.teacher
    read = {}
    for most in (1, 64, 1 << 20):
        monkeypatch.setattr(hidden_states, "SLICE_POSITIONS", most)
        read[most], _ = trainer.distillation.read(rows, teacher)
    mask = rows.completion_mask.bool()
    assert mask.sum() > 20
    for most in (1, 64):
        torch.testing.assert_close(read[most][mask], read[1 << 20][mask], atol=1e-5, rtol=1e-5)


def test_where_weights_are_sharded_all_rows_are_one_slice(
    tiny_policy, tmp_path, monkeypatch
) -> None:
    reward = Turns([0.0] * 8)
    trainer = critique_trainer(tiny_policy, tmp_path, reward, critic=Words(), **DISTILL)
    passes = trainer.distillation.passes
    assert passes.slice_positions == hidden_states.SLICE_POSITIONS
    kind = hidden_states.SHARDED[0]
    monkeypatch.setattr(trainer.accelerator.state, "distributed_type", kind)
    assert passes.slice_positions == math.inf


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_learned_positions_count_no_padding_and_hidden_states_must_be_there(kind) -> None:
    if kind == "gpt2":
        config = GPT2Config(vocab_size=300, n_positions=128, n_embd=16, n_layer=1, n_head=2)
        model = GPT2LMHeadModel(config)
    else:
        config = OPTConfig(
            vocab_size=300,
            hidden_size=16,
            ffn_dim=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=128,
            word_embed_proj_dim=16,
        )
        model = OPTForCausalLM(config)
    rows = term_rows_of([12, 3, 7], [2, 12, 5])
    model = model.eval()
    teacher = SimpleNamespace(weights=lambda policy: nullcontext(model))
    passes = SimpleNamespace(model=model, slice_positions=1, autocast=nullcontext)
    reader = SimpleNamespace(passes=passes, has_checked_head=True)
    if kind == "opt":
        with pytest.raises(ValueError, match="OPTForCausalLM does not pass through its base model"):
            Distillation.read(reader, rows, teacher)
        return
    read = {}
    for passes.slice_positions in (1, math.inf):
        read[passes.slice_positions], _ = Distillation.read(reader, rows, teacher)
    mask = rows.completion_mask.bool()
    torch.testing.assert_close(read[1][mask], read[math.inf][mask], atol=1e-5, rtol=1e-5)


def test_a_double_policy_takes_the_teachers_advantages(tiny_policy, tmp_path) -> None:
    settings = {**DISTILL, "distill_mode": "advantage", "max_steps": 1}
    reward = Turns([0.0] * 8)
    trainer = critique_trainer(tiny_policy, tmp_path, reward, critic=Words(), **settings)
    trainer.model.double()
    trainer.train()
    assert trainer.state.global_step == 1
