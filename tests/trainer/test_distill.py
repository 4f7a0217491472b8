"""Terms whose teacher reads more, against full logits and numbers worked by hand; contexts,
teachers, expert traces, and what trains nothing.
"""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset
from known_critics import QUESTIONS, WORDS, Turns, Words, generated
from lab_trainers import (
    DISTILL,
    completion_tokens,
    context_tokens,
    critique_trainer,
    logits_of,
    logps_of,
    move_weights,
    prompt_tokens,
    same_gradient,
)
from torch import Tensor
from transformers import AutoModelForCausalLM

from critique_rl.config.schema import TaskConfig
from critique_rl.critic.controls import OracleCritic
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import VerifierReward
from critique_rl.trainer import hidden_states

# ---- the term against full logits ----------------------------------------------------------------


def naive_divergence(
    student: Tensor, teacher: Tensor, labels: list[int], mode: str, alpha: float, k: int
) -> Tensor:
    """(T,) from whole distributions (T, V), as the papers write it."""
    if mode == "sampled":
        s, t = (p[range(len(labels)), labels].log() for p in (student, teacher))
        return (s - t).detach() * s
    if mode == "topk":
        top = student.topk(k).indices
        student, teacher = (
            torch.cat([p.gather(-1, top), 1 - p.gather(-1, top).sum(-1, keepdim=True)], -1)
            for p in (student, teacher)
        )

    def kl(p: Tensor, q: Tensor) -> Tensor:
        return (p * (p / q).log()).sum(-1)

    mixed = (1 - alpha) * student + alpha * teacher
    if alpha == 0:
        return kl(teacher, student)
    if alpha == 1:
        return kl(student, teacher)
    return (1 - alpha) * kl(student, mixed) + alpha * kl(teacher, mixed)


@pytest.mark.parametrize(
    ("mode", "alpha", "more"),
    [(mode, alpha, {}) for mode in ("full", "topk") for alpha in (0.0, 0.5, 1.0)]
    + [
        ("sampled", 1.0, {}),
        ("full", 0.5, {"temperature": 0.7}),
        ("sampled", 1.0, {"temperature": 0.7}),
    ]
    + [
        ("full", 0.5, {"distill_teacher": "live"}),
        ("full", 1.0, {"distill_prefix": True}),
        ("sampled", 1.0, {"distill_prefix": True}),
    ],
)
def test_the_distill_term_and_its_gradient_are_those_of_full_logits(
    tiny_policy, tmp_path, mode, alpha, more
) -> None:
    settings = {
        "distill_mode": mode,
        "distill_alpha": alpha,
        "distill_top_k": 5,
        "distill_teacher": "base",
        **more,
    }
    # rows 0, 5 and 6 are right: they have no critique, and no teacher
    reward = Turns([1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    trainer = critique_trainer(tiny_policy, tmp_path, reward, Words(), **DISTILL, **settings)
    move_weights(trainer)
    output = generated(trainer)
    model, temperature = trainer.model, trainer.temperature
    reader = model
    if more.get("distill_teacher") != "live":
        reader = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
    old = torch.zeros(output["completion_ids"].shape)
    total = torch.zeros((), dtype=torch.float64)
    tokens = 0
    for row in (1, 2, 3, 4, 7):
        question = QUESTIONS[row // 4]
        completion = completion_tokens(output, row)
        plain = prompt_tokens(trainer, question)
        critiqued = prompt_tokens(trainer, f"{question}\n> {WORDS}")
        student = torch.softmax(logits_of(model, plain, completion) / temperature, -1)
        with torch.no_grad():
            taught = torch.softmax(logits_of(reader, critiqued, completion) / temperature, -1)
        logps = student.detach()[range(len(completion)), completion].log()
        # p / p_old is e^-.5, 1, e^.5, e (capped at 2) in turn
        log_ratios = torch.tensor([-0.5, 0.0, 0.5, 1.0]).repeat(2)[: len(completion)]
        old[row, : len(completion)] = logps.float() - log_ratios
        capped = torch.tensor([math.exp(-0.5), 1.0, math.exp(0.5), 2.0], dtype=torch.float64)
        weights = capped.repeat(2)[: len(completion)]
        if more.get("distill_prefix"):
            # how likely the tokens before this one are to the teacher against the student, 1 at
            # most
            ratios = taught[range(len(completion)), completion] / logps.exp()
            prefixes = [min(1.0, math.prod(ratios[:t].tolist())) for t in range(len(completion))]
            weights = weights * torch.tensor(prefixes, dtype=torch.float64)
        divergence = naive_divergence(student, taught, completion, mode, alpha, 5)
        total = total + (divergence * weights).sum()
        tokens += len(completion)
    assert output["distill_mask"].tolist() == [row in (1, 2, 3, 4, 7) for row in range(8)]
    assert output["distill_tokens"] == tokens
    loss = trainer._compute_loss(model, {**output, "old_per_token_logps": old})
    assert loss.item() == pytest.approx((total / tokens).item(), rel=1e-4)
    same_gradient(loss, (total / tokens).float(), model)


def test_a_divergence_renormalised_over_the_top_k_is_that_of_full_logits(
    tiny_policy, tmp_path
) -> None:
    settings = {
        "distill_mode": "topk",
        "distill_alpha": 0.5,
        "distill_top_k": 5,
        "distill_tail": False,
        "distill_teacher": "base",
    }
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns([0.0] * 8), Words(), **DISTILL, **settings
    )
    move_weights(trainer)
    output = generated(trainer)
    base = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(8):
        question = QUESTIONS[row // 4]
        completion = completion_tokens(output, row)
        student = logits_of(trainer.model, prompt_tokens(trainer, question), completion)
        with torch.no_grad():
            taught = logits_of(base, prompt_tokens(trainer, f"{question}\n> {WORDS}"), completion)
        top = student.topk(5).indices
        student_top = torch.softmax(student.gather(-1, top), -1)
        taught_top = torch.softmax(taught.gather(-1, top), -1)
        total = total + naive_divergence(student_top, taught_top, completion, "full", 0.5, 5).sum()
    loss = trainer._compute_loss(trainer.model, output)
    assert loss.item() == pytest.approx((total / output["completion_mask"].sum()).item(), rel=1e-4)
    same_gradient(loss, (total / output["completion_mask"].sum()).float(), trainer.model)


def test_a_gap_between_trls_log_probs_and_the_heads_is_refused(
    tiny_policy, tmp_path, monkeypatch
) -> None:
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns([0.0] * 8), Words(), **DISTILL, distill_mode="full"
    )
    output = generated(trainer)
    head_of = hidden_states.head_of
    monkeypatch.setattr(
        hidden_states, "head_of", lambda model: hidden_states.Head(30 * head_of(model).weight)
    )
    with pytest.raises(
        ValueError, match=r"this model's head gives log-probs .* Use a served teacher"
    ):
        trainer._compute_loss(trainer.model, output)


# ---- advantage mode: TRL must read the advantages after the forward pass -------------------------


def token_advantages(trainer, output) -> list[tuple[int, Tensor, Tensor]]:
    """(row, the policy's log-probs, the base's under the critique) of every row."""
    base = AutoModelForCausalLM.from_pretrained(trainer.model.name_or_path, dtype=torch.float32)
    rows = []
    for row in range(len(output["completion_ids"])):
        question = QUESTIONS[row // 4]
        completion = completion_tokens(output, row)
        with torch.no_grad():
            taught = logps_of(base, prompt_tokens(trainer, f"{question}\n> {WORDS}"), completion)
        logps = logps_of(trainer.model, prompt_tokens(trainer, question), completion)
        rows.append((row, logps, taught))
    return rows


def test_the_advantage_mode_pulls_each_token_by_its_log_ratio(tiny_policy, tmp_path) -> None:
    settings = {
        "distill_mode": "advantage",
        "distill_teacher": "base",
        "scalar_normalizer": "subset",
    }
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns([0.0] * 7 + [1.0]), Words(), **DISTILL, **settings
    )
    move_weights(trainer)
    output = generated(trainer)
    # -(log pi_T - log pi_old) grad log pi over the tokens of rows that have a teacher (all but the
    # right one), TRL's old being its own here
    rows = [each for each in token_advantages(trainer, output) if each[0] != 7]
    tokens = sum(len(taught) for _, _, taught in rows)
    naive = -sum(((taught - logps).detach() * logps).sum() for _, logps, taught in rows) / tokens
    loss = trainer._compute_loss(trainer.model, output)
    same_gradient(loss, naive.float(), trainer.model)
    # and its value is minus the mean log-ratio, as the ratio is 1
    log_ratio = sum((taught - logps).sum().item() for _, logps, taught in rows) / tokens
    assert loss.item() == pytest.approx(-log_ratio, rel=1e-4)


def test_the_advantage_mode_goes_under_trls_clip_and_beside_the_verifiers_reward(
    tiny_policy, tmp_path
) -> None:
    settings = {
        **DISTILL,
        "positive_weight": 1.0,
        "negative_weight": 1.0,
        "credit": "signed",
        "distill_mode": "advantage",
        "distill_teacher": "base",
    }
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 7 + [1.0]),
        Words(),
        **settings,
        epsilon=0.2,
        epsilon_high=0.28,
    )
    move_weights(trainer)
    output = generated(trainer)
    naive = 0.0
    old = torch.zeros(output["completion_ids"].shape)
    for row, logps, taught in token_advantages(trainer, output):
        before = (
            logps.detach()
            - torch.tensor([-0.5, 0.0, 0.5, 0.1], dtype=torch.float64).repeat(2)[: len(taught)]
        )
        old[row, : len(taught)] = before.float()
        # A_t = r + (log pi_T - log pi_old), r = -1; the right row has no critique: A_t = 1. Then
        # PPO's clip, .8 to 1.28
        advantages = torch.ones_like(taught) if row == 7 else -1 + taught - before
        ratio = torch.exp(logps - before)
        naive = naive - torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages).sum()
    naive = naive / output["completion_mask"].sum()
    loss = trainer._compute_loss(trainer.model, {**output, "old_per_token_logps": old})
    assert loss.item() == pytest.approx(naive.item(), rel=1e-4)
    same_gradient(loss, naive.float(), trainer.model)


# ---- faults --------------------------------------------------------------------------------------


def test_faulty_tokens_have_a_log_ratio_of_their_own(tmp_path) -> None:
    from critique_rl.lab.base import WEIGHTS

    task = load_task(TaskConfig("lab/chain", {"plateau": 1}, 2), 0)
    settings = {
        **DISTILL,
        "distill_mode": "sampled",
        "distill_teacher": "live",
        "max_completion_length": 40,
    }
    trainer = critique_trainer(
        str(WEIGHTS),
        tmp_path,
        VerifierReward(task.verifier),
        OracleCritic(task.oracle, task.is_answer),
        Dataset.from_list(task.train),
        **settings,
    )
    output = generated(trainer, task.train)
    faulty = output["fault_mask"] & output["distill_mask"].unsqueeze(1)
    failed = output["distill_mask"].nonzero().flatten().tolist()
    assert failed, "the base fails on chains of traps"
    sums = {"failed": [0.0, 0], "faulty": [0.0, 0]}
    for row in failed:
        prompt = prompt_tokens(trainer, trainer.rows[row]["question"])
        with torch.no_grad():
            untaught, taught = (
                logps_of(trainer.model, p, completion_tokens(output, row))
                for p in (prompt, context_tokens(output, row))
            )
        log_ratio = taught - untaught
        for name, chosen in (
            ("failed", torch.ones_like(log_ratio).bool()),
            ("faulty", faulty[row][: len(untaught)]),
        ):
            sums[name][0] += log_ratio[chosen].sum().item()
            sums[name][1] += chosen.sum().item()
    assert 0 < sums["faulty"][1] < sums["failed"][1]
    trainer._compute_loss(trainer.model, output)
    for name, (total, count) in sums.items():
        assert trainer._metrics["train"][f"distill/log_ratio_{name}"] == [
            pytest.approx(total / count, rel=1e-3, abs=1e-4)
        ]


def test_while_the_critique_is_held_no_teacher_adds_to_the_advantages(
    tiny_policy, tmp_path
) -> None:
    settings = {"distill_mode": "advantage", "scalar_normalizer": "subset", "credit": "signed"}
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([1.0, 0.0, 0.0, 0.0] * 2),
        Words(),
        refine_slots=0,
        distill_weight=1.0,
        max_steps=2,
        **settings,
    )
    trainer.hold_critique()
    trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    assert len(log) == 2
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in log)
    assert not any("distill/rows" in row or "critique/ok" in row for row in log)
