"""Terms whose teacher reads more, against full logits and numbers worked by hand; contexts,
teachers, expert traces, and what trains nothing.
"""

from __future__ import annotations

import math
import warnings
from itertools import cycle

import pytest
import torch
from datasets import Dataset
from known_critics import (
    DATA,
    QUESTIONS,
    SOLUTIONS,
    WORDS,
    Turns,
    Words,
    completion_text,
    generated,
)
from tiny_trainers import SETTINGS, trainer_of
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import OracleCritic
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import VerifierReward
from critique_rl.trainer import hidden_states, trl_seams
from critique_rl.trainer.rollout.sampled import Sampled
from critique_rl.trainer.rollout.scoring import fault_mask
from critique_rl.trainer.teacher import FILE, Teacher
from critique_rl.types import Verdict

LAB = {"refine_template": "lab/refine", "distill_template": "lab/teacher", "grad_norm_steps": 0}
OFF = {"positive_weight": 0.0, "negative_weight": 0.0, "refine_weight": 0.0}
"""Nothing but what a test switches on."""
DISTILL = {**OFF, "refine_slots": 0, "distill_weight": 1.0, "learning_rate": 1e-2}


def ours(policy: str, folder, reward, critic=None, data=DATA, **settings) -> CritiqueGRPOTrainer:
    return trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        policy,
        folder,
        reward,
        data,
        settings={**LAB, **settings},
        critic=critic,
    )


def moved(trainer: CritiqueGRPOTrainer) -> None:
    """A policy some way from where it started, so that the base is another teacher than the policy
    itself.
    """
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def prompt_tokens(trainer: CritiqueGRPOTrainer, text: str) -> list[int]:
    return trainer.processing_class.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True
    )["input_ids"]


def context_tokens(output: dict, row: int) -> list[int]:
    return output["context_ids"][row][output["context_mask"][row].bool()].tolist()


def completion_tokens(output: dict, row: int) -> list[int]:
    return output["completion_ids"][row][output["completion_mask"][row].bool()].tolist()


def logits_of(model: nn.Module, prompt: list[int], completion: list[int]) -> Tensor:
    """(completion, vocabulary) from one plain forward pass without padding."""
    return model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].double()


def logps_of(model: nn.Module, prompt: list[int], completion: list[int]) -> Tensor:
    return (
        torch.log_softmax(logits_of(model, prompt, completion), -1)
        .gather(-1, torch.tensor(completion).unsqueeze(-1))
        .squeeze(-1)
    )


def same_gradient(loss: Tensor, naive: Tensor, model: nn.Module) -> None:
    parameters = list(model.parameters())
    expected = torch.autograd.grad(naive, parameters)
    actual = torch.autograd.grad(loss, parameters)
    assert max(g.abs().max() for g in expected) > 1e-3, "a gradient of nothing proves nothing"
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)


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
    return (
        kl(teacher, student)
        if alpha == 0
        else kl(student, teacher)
        if alpha == 1
        else (1 - alpha) * kl(student, mixed) + alpha * kl(teacher, mixed)
    )


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
    trainer = ours(tiny_policy, tmp_path, reward, Words(), **DISTILL, **settings)
    moved(trainer)
    output = generated(trainer)
    model, temperature = trainer.model, trainer.temperature
    reads = (
        model
        if more.get("distill_teacher") == "live"
        else AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
    )
    old = torch.zeros(output["completion_ids"].shape)
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for row in (1, 2, 3, 4, 7):
        question, completion = QUESTIONS[row // 4], completion_tokens(output, row)
        student = torch.softmax(
            logits_of(model, prompt_tokens(trainer, question), completion) / temperature, -1
        )
        with torch.no_grad():
            taught = torch.softmax(
                logits_of(reads, prompt_tokens(trainer, f"{question}\n> {WORDS}"), completion)
                / temperature,
                -1,
            )
        logps = student.detach()[range(len(completion)), completion].log()
        # p / p_old is e^-.5, 1, e^.5, e (capped at 2) in turn
        old[row, : len(completion)] = (
            logps.float() - torch.tensor([-0.5, 0.0, 0.5, 1.0]).repeat(2)[: len(completion)]
        )
        weights = torch.tensor(
            [math.exp(-0.5), 1.0, math.exp(0.5), 2.0], dtype=torch.float64
        ).repeat(2)[: len(completion)]
        if more.get("distill_prefix"):
            # how likely the tokens before this one are to the teacher against the student, 1 at
            # most
            ratios = taught[range(len(completion)), completion] / logps.exp()
            weights = weights * torch.tensor(
                [min(1.0, math.prod(ratios[:t].tolist())) for t in range(len(completion))],
                dtype=torch.float64,
            )
        total = (
            total + (naive_divergence(student, taught, completion, mode, alpha, 5) * weights).sum()
        )
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
    trainer = ours(tiny_policy, tmp_path, Turns([0.0] * 8), Words(), **DISTILL, **settings)
    moved(trainer)
    output, base = (
        generated(trainer),
        AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32),
    )
    total = torch.zeros((), dtype=torch.float64)
    for row in range(8):
        question, completion = QUESTIONS[row // 4], completion_tokens(output, row)
        student = logits_of(trainer.model, prompt_tokens(trainer, question), completion)
        with torch.no_grad():
            taught = logits_of(base, prompt_tokens(trainer, f"{question}\n> {WORDS}"), completion)
        top = student.topk(5).indices
        total = (
            total
            + naive_divergence(
                *(torch.softmax(logits.gather(-1, top), -1) for logits in (student, taught)),
                completion,
                "full",
                0.5,
                5,
            ).sum()
        )
    loss = trainer._compute_loss(trainer.model, output)
    assert loss.item() == pytest.approx((total / output["completion_mask"].sum()).item(), rel=1e-4)
    same_gradient(loss, (total / output["completion_mask"].sum()).float(), trainer.model)


def test_a_gap_between_trls_log_probs_and_the_heads_is_refused(
    tiny_policy, tmp_path, monkeypatch
) -> None:
    trainer = ours(tiny_policy, tmp_path, Turns([0.0] * 8), Words(), **DISTILL, distill_mode="full")
    output, head_of = generated(trainer), hidden_states.head_of
    monkeypatch.setattr(
        hidden_states, "head_of", lambda model: hidden_states.Head(30 * head_of(model).weight)
    )
    with pytest.raises(
        ValueError, match=r"this model's head gives log-probs .* use distill_mode sampled"
    ):
        trainer._compute_loss(trainer.model, output)


# ---- advantage mode: TRL must read the advantages after the forward pass -------------------------


def token_advantages(trainer, output) -> list[tuple[int, Tensor, Tensor]]:
    """(row, the policy's log-probs, the base's under the critique) of every row."""
    base, rows = (
        AutoModelForCausalLM.from_pretrained(trainer.model.name_or_path, dtype=torch.float32),
        [],
    )
    for row in range(len(output["completion_ids"])):
        question, completion = QUESTIONS[row // 4], completion_tokens(output, row)
        with torch.no_grad():
            taught = logps_of(base, prompt_tokens(trainer, f"{question}\n> {WORDS}"), completion)
        rows.append(
            (row, logps_of(trainer.model, prompt_tokens(trainer, question), completion), taught)
        )
    return rows


def test_the_advantage_mode_pulls_each_token_by_its_log_ratio(tiny_policy, tmp_path) -> None:
    settings = {
        "distill_mode": "advantage",
        "distill_teacher": "base",
        "scalar_normalizer": "subset",
    }
    trainer = ours(tiny_policy, tmp_path, Turns([0.0] * 7 + [1.0]), Words(), **DISTILL, **settings)
    moved(trainer)
    output = generated(trainer)
    # -(log pi_T - log pi_old) grad log pi over the tokens of rows that have a teacher (all but the
    # right one), TRL's old being its own here
    rows = [each for each in token_advantages(trainer, output) if each[0] != 7]
    naive = -sum(((taught - logps).detach() * logps).sum() for _, logps, taught in rows) / sum(
        len(taught) for _, _, taught in rows
    )
    loss = trainer._compute_loss(trainer.model, output)
    same_gradient(loss, naive.float(), trainer.model)
    # and its value is minus the mean log-ratio, as the ratio is 1
    assert loss.item() == pytest.approx(
        -sum((t - s).sum().item() for _, s, t in rows) / sum(len(t) for _, _, t in rows), rel=1e-4
    )


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
    trainer = ours(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 7 + [1.0]),
        Words(),
        **settings,
        epsilon=0.2,
        epsilon_high=0.28,
    )
    moved(trainer)
    output, naive = generated(trainer), 0.0
    old = torch.zeros(output["completion_ids"].shape)
    for row, logps, taught in token_advantages(trainer, output):
        before = (
            logps.detach()
            - torch.tensor([-0.5, 0.0, 0.5, 0.1], dtype=torch.float64).repeat(2)[: len(taught)]
        )
        old[row, : len(taught)] = before.float()
        # A_t = r + (log pi_T - log pi_old), r = -1; the right row has no critique: A_t = 1. Then
        # PPO's clip, .8 to 1.28
        advantages, ratio = (
            (torch.ones_like(taught) if row == 7 else -1 + taught - before),
            torch.exp(logps - before),
        )
        naive = naive - torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages).sum()
    naive = naive / output["completion_mask"].sum()
    loss = trainer._compute_loss(trainer.model, {**output, "old_per_token_logps": old})
    assert loss.item() == pytest.approx(naive.item(), rel=1e-4)
    same_gradient(loss, naive.float(), trainer.model)


# ---- teachers ------------------------------------------------------------------------------------


def scalar_model(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_the_moving_average_after_two_updates_by_hand() -> None:
    model = scalar_model(1.0)
    teacher = Teacher(model, "ema", 0.25)
    # .75 * 1 + .25 * 5 = 2, then .75 * 2 + .25 * -2 = 1
    for value, expected in ((5.0, 2.0), (-2.0, 1.0)):
        nn.init.constant_(model.weight, value)
        teacher.update(model)
        assert teacher.kept["weight"].item() == expected
        assert model.weight.item() == value


def test_within_the_block_the_weights_are_the_teachers_and_afterwards_the_policys() -> None:
    model = scalar_model(1.0)
    teacher = Teacher(model, "ema", 0.5)
    nn.init.constant_(model.weight, 3.0)
    with teacher.weights(model):
        assert model.weight.item() == 1.0
    with pytest.raises(RuntimeError, match="out of memory"), teacher.weights(model):
        raise RuntimeError("out of memory")
    assert (model.weight.item(), teacher.kept["weight"].item()) == (3.0, 1.0)
    # and the average still moves on its own: .5 * 1 + .5 * 3
    teacher.update(model)
    assert (model.weight.item(), teacher.kept["weight"].item()) == (3.0, 2.0)


def test_the_base_stays_and_the_live_teacher_keeps_nothing(tmp_path) -> None:
    model = scalar_model(1.0)
    base, live = Teacher(model, "base", 0.5), Teacher(model, "live", 0.5)
    nn.init.constant_(model.weight, 3.0)
    for teacher in (base, live):
        teacher.update(model)
        teacher.save(tmp_path)
        teacher.load(tmp_path)
    assert base.kept["weight"].item() == 1.0
    assert live.kept == {}
    with live.weights(model):
        assert model.weight.item() == 3.0
    assert not (tmp_path / FILE).exists()


def test_frozen_weights_are_not_kept() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    model[0].requires_grad_(False)
    assert set(Teacher(model, "ema", 0.1).kept) == {"1.weight", "1.bias"}


def test_a_saved_average_comes_back_and_a_checkpoint_without_one_is_refused(tmp_path) -> None:
    teacher, other = Teacher(scalar_model(1.5), "ema", 0.5), Teacher(scalar_model(0.0), "ema", 0.5)
    teacher.save(tmp_path)
    other.load(tmp_path)
    assert other.kept["weight"].item() == 1.5
    (tmp_path / FILE).unlink()
    with pytest.raises(
        FileNotFoundError,
        match="the checkpoint has no EMA teacher; it was written by a run without distill_teacher 'ema'",
    ):
        other.load(tmp_path)


def test_a_resumed_run_has_the_teacher_of_an_uninterrupted_one(tiny_policy, tmp_path) -> None:
    settings = {
        **DISTILL,
        "distill_teacher": "ema",
        "distill_ema": 0.3,
        "distill_context": "demonstration",
        "max_steps": 4,
    }
    whole = ours(
        tiny_policy, tmp_path, Turns([0.0] * 8), **settings, save_strategy="steps", save_steps=2
    )
    start = {name: value.clone() for name, value in whole.distillation.teacher.kept.items()}
    whole.train()
    assert (tmp_path / "checkpoint-2" / FILE).exists()
    resumed = ours(tiny_policy, tmp_path, Turns([0.0] * 8), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    kept = whole.distillation.teacher.kept
    assert kept.keys() == resumed.distillation.teacher.kept.keys() == start.keys()
    assert all(
        torch.equal(value, resumed.distillation.teacher.kept[name]) for name, value in kept.items()
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    )
    assert any(not torch.equal(value, start[name]) for name, value in kept.items())
    (tmp_path / "checkpoint-2" / FILE).unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"checkpoint-2/teacher\.safetensors: the checkpoint has no EMA teacher",
    ):
        ours(tiny_policy, tmp_path, Turns([0.0] * 8), **settings).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-2")
        )


def test_with_lora_the_base_is_the_model_without_its_adapter(tiny_policy, tmp_path) -> None:
    peft = pytest.importorskip("peft")
    adapter = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    settings = {**LAB, **DISTILL, "distill_mode": "full", "distill_teacher": "base"}
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        Turns([0.0] * 8),
        DATA,
        settings=settings,
        critic=Words(),
        peft_config=adapter,
    )
    teacher, output = trainer.distillation.teacher, generated(trainer)
    assert teacher.adapter_off
    assert teacher.kept == {}
    hidden, _ = trainer.distillation.read(hidden_states.term_rows(output, "distill_mask"), teacher)
    context, completion = context_tokens(output, 5), completion_tokens(output, 5)
    ids = torch.tensor([context + completion])
    with torch.no_grad():
        base = (
            AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
            .model(ids)
            .last_hidden_state[0, len(context) - 1 : -1]
        )
        policy = (
            hidden_states.causal_model(trainer.model)
            .base_model(ids)
            .last_hidden_state[0, len(context) - 1 : -1]
        )
    torch.testing.assert_close(hidden[5, : len(completion)], base, atol=1e-5, rtol=1e-5)
    assert (policy - base).abs().max() > 1e-3, "the adapter is on again"
    assert trainer._compute_loss(trainer.model, output).item() > 0


# ---- contexts ------------------------------------------------------------------------------------

HALF = [1.0, 0.0, 0.0, 0.0] + [0.0] * 4
"""One right rollout of the first question, none of the second."""


def teachers_of(trainer, output) -> list[str | None]:
    """What each row's teacher reads, None where it has none."""
    texts = [
        trainer.processing_class.decode(context_tokens(output, row))
        for row in range(len(output["completion_ids"]))
    ]
    return [
        text if has else None
        for text, has in zip(texts, output["distill_mask"].tolist(), strict=True)
    ]


def test_a_rollouts_teacher_reads_the_critique_and_not_the_attempt(tiny_policy, tmp_path) -> None:
    trainer = ours(tiny_policy, tmp_path, Turns(HALF), Words(), **DISTILL)
    output = generated(trainer)
    first, second = (f"<user>{question}\n> {WORDS}<policy>" for question in QUESTIONS)
    assert teachers_of(trainer, output) == [None, first, first, first] + [second] * 4
    # contexts and completions of the seven rows
    read = 3 * len(prompt_tokens(trainer, f"{QUESTIONS[0]}\n> {WORDS}")) + 4 * len(
        prompt_tokens(trainer, f"{QUESTIONS[1]}\n> {WORDS}")
    )
    assert trainer.tokens["tokens/teacher"] == read + output["completion_mask"][1:].sum()
    assert trainer._metrics["train"]["distill/rows"] == [7]


def test_a_rollouts_teacher_reads_a_right_sibling_or_else_a_critique(tiny_policy, tmp_path) -> None:
    for context, wrong in (
        ("sibling", None),
        ("sibling_or_critique", f"<user>{QUESTIONS[1]}\n> {WORDS}<policy>"),
    ):
        trainer = ours(
            tiny_policy, tmp_path, Turns(HALF), Words(), **DISTILL, distill_context=context
        )
        output = generated(trainer)
        sibling = f"<user>{QUESTIONS[0]}\n{completion_text(trainer, output, 0)}\n> <policy>"
        assert teachers_of(trainer, output) == [
            None,
            sibling,
            sibling,
            sibling,
            wrong,
            wrong,
            wrong,
            wrong,
        ]


def test_a_right_rollout_learns_from_another_right_one_and_none_from_itself(
    tiny_policy, tmp_path
) -> None:
    trainer = ours(
        tiny_policy,
        tmp_path,
        Turns([0.0, 1.0, 0.0, 1.0] + [0.0] * 4),
        **DISTILL,
        distill_context="sibling",
    )
    output = generated(trainer)
    one, three = (
        f"<user>{QUESTIONS[0]}\n{completion_text(trainer, output, row)}\n> <policy>"
        for row in (1, 3)
    )
    assert teachers_of(trainer, output) == [one, three, one, one, None, None, None, None]


def test_a_demonstration_is_read_for_every_rollout_without_any_critic(
    tiny_policy, tmp_path
) -> None:
    trainer = ours(tiny_policy, tmp_path, Turns(HALF), **DISTILL, distill_context="demonstration")
    first, second = (
        f"<user>{question}\n{solution}\n> <policy>"
        for question, solution in zip(QUESTIONS, SOLUTIONS, strict=True)
    )
    assert teachers_of(trainer, generated(trainer)) == [first] * 4 + [second] * 4


def test_a_column_that_does_not_exist_is_refused_with_those_that_do(tiny_policy, tmp_path) -> None:
    with pytest.raises(
        ValueError,
        match="distill_column: got 'proof', but train_dataset has the columns answer, prompt, question, solution",
    ):
        ours(
            tiny_policy,
            tmp_path,
            Turns(HALF),
            **DISTILL,
            distill_context="demonstration",
            distill_column="proof",
        )
    with pytest.raises(
        ValueError,
        match="refine_column: got 'proof', but train_dataset has the columns answer, prompt, question, solution",
    ):
        ours(tiny_policy, tmp_path, Turns(HALF), refine_column="proof")


@pytest.mark.parametrize(
    ("target", "rows"),
    [("refinements", [3]), ("both", [0, 1, 2, 3, 4, 5, 6]), ("rollouts", [0, 1, 2, 4, 5, 6])],
)
def test_a_chosen_refinements_teacher_reads_the_prompt_it_was_sampled_from(
    tiny_policy, tmp_path, target, rows
) -> None:
    # all six rollouts fail; of the candidates the second of the first group is right, none of the
    # second group
    reward = Turns([0.0] * 6, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    trainer = ours(
        tiny_policy,
        tmp_path,
        reward,
        Words(),
        **{**DISTILL, "refine_slots": 1},
        distill_target=target,
    )
    output = generated(trainer)
    texts = teachers_of(trainer, output)
    assert [row for row, text in enumerate(texts) if text] == rows
    if 3 in rows:
        assert (
            texts[3]
            == f"<user>{QUESTIONS[0]}\n{completion_text(trainer, output, 1)}\n> {WORDS}<policy>"
        )
    # a wrong refinement teaches nothing, whatever the target
    assert 7 not in rows
    assert output["distill_tokens"] == output["completion_mask"][rows].sum()
    assert trainer._compute_loss(trainer.model, output).item() > 0


def test_the_term_is_divided_by_its_own_tokens_or_by_those_of_all_rollouts(
    tiny_policy, tmp_path
) -> None:
    # rollouts 0 and 4 are right; the first group's refinement is right, the second's wrong
    turns = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]
    for normalizer, target, rows in (
        ("own", "rollouts", [1, 2, 5, 6]),
        ("rollouts", "rollouts", [0, 1, 2, 4, 5, 6]),
        ("own", "both", [1, 2, 3, 5, 6]),
        ("rollouts", "both", [0, 1, 2, 3, 4, 5, 6]),
    ):
        settings = {
            **DISTILL,
            "refine_slots": 1,
            "distill_normalizer": normalizer,
            "distill_target": target,
        }
        output = generated(ours(tiny_policy, tmp_path, Turns(*turns), Words(), **settings))
        assert output["distill_mask"].nonzero().flatten().tolist() == (
            [1, 2, 3, 5, 6] if target == "both" else [1, 2, 5, 6]
        )
        assert output["distill_tokens"] == output["completion_mask"][rows].sum(), (
            normalizer,
            target,
        )


def test_contexts_that_are_too_long_are_counted_and_train_nothing(tiny_policy, tmp_path) -> None:
    # <user>, question, newline, solution, newline, "> ", <policy>: 1 + 9 + 1 + 15 + 1 + 2 + 1 = 30
    # and 1 + 5 + 1 + 10 + 1 + 2 + 1 = 21 tokens
    settings = {**DISTILL, "distill_context": "demonstration", "distill_mode": "full"}
    trainer = ours(tiny_policy, tmp_path, Turns(HALF), **settings, max_refine_prompt_length=21)
    output = generated(trainer)
    assert output["distill_mask"].tolist() == [False] * 4 + [True] * 4
    assert trainer._metrics["train"]["distill/prompt_too_long"] == [4]
    trainer = ours(tiny_policy, tmp_path, Turns(HALF), **settings, max_refine_prompt_length=20)
    output = generated(trainer)
    assert trainer._metrics["train"]["distill/prompt_too_long"] == [8]
    loss = trainer._compute_loss(trainer.model, output)
    loss.backward()
    assert loss.item() == 0.0
    assert all(
        parameter.grad is None or parameter.grad.abs().max() == 0
        for parameter in trainer.model.parameters()
    )


def test_a_critique_too_long_to_refine_with_is_still_read_where_nothing_is_refined(
    tiny_policy, tmp_path
) -> None:
    # the teacher's prompt has 1 + 9 + 1 + 2 + 11 + 1 = 25 tokens for the first question; a refine
    # prompt would hold the attempt too
    trainer = ours(
        tiny_policy, tmp_path, Turns([0.0] * 8), Words(), **DISTILL, max_refine_prompt_length=25
    )
    assert all(generated(trainer)["distill_mask"].tolist())


# ---- faults --------------------------------------------------------------------------------------


def test_the_fault_mask_holds_the_tokens_of_the_wrong_result_alone(tiny_policy) -> None:
    from critique_rl.lab.base import build_tokenizer

    tokenizer = build_tokenizer()
    text = "A-7=4\nB+9=13\n#13"
    ids = torch.tensor([[*tokenizer(text)["input_ids"], 1], [0] * 17])
    verdict = load_task(TaskConfig("lab/chain", {"no-trap": 1}, 1), 0).verifier(
        text, {"question": "3 A-7 B+9", "answer": "5"}
    )
    mask = fault_mask(tokenizer, ids, [verdict, Verdict("right")])
    # A-7= are characters 0 to 3; the second line follows from the first, and so is not at fault
    assert [tokenizer.decode(token) for token in ids[mask]] == ["4"]
    assert mask.nonzero().tolist() == [[0, 4]]


def test_faulty_tokens_have_a_log_ratio_of_their_own(tmp_path) -> None:
    from critique_rl.lab.base import WEIGHTS

    task = load_task(TaskConfig("lab/chain", {"plateau": 1}, 2), 0)
    settings = {
        **DISTILL,
        "distill_mode": "sampled",
        "distill_teacher": "live",
        "max_completion_length": 40,
    }
    trainer = ours(
        str(WEIGHTS),
        tmp_path,
        VerifierReward(task.verifier),
        OracleCritic(task.oracle, task.is_answer),
        Dataset.from_list(task.train),
        **settings,
    )
    output = generated(trainer, task.train)
    faulty, failed = (
        output["fault_mask"] & output["distill_mask"].unsqueeze(1),
        output["distill_mask"].nonzero().flatten().tolist(),
    )
    assert failed, "the base fails on chains of traps"
    sums = {"failed": [0.0, 0], "faulty": [0.0, 0]}
    for row in failed:
        prompt = prompt_tokens(trainer, trainer.rows[row]["question"])
        with torch.no_grad():
            own, taught = (
                logps_of(trainer.model, p, completion_tokens(output, row))
                for p in (prompt, context_tokens(output, row))
            )
        log_ratio = taught - own
        for name, chosen in (
            ("failed", torch.ones_like(log_ratio).bool()),
            ("faulty", faulty[row][: len(own)]),
        ):
            sums[name][0] += log_ratio[chosen].sum().item()
            sums[name][1] += chosen.sum().item()
    assert 0 < sums["faulty"][1] < sums["failed"][1]
    trainer._compute_loss(trainer.model, output)
    for name, (total, count) in sums.items():
        assert trainer._metrics["train"][f"distill/log_ratio_{name}"] == [
            pytest.approx(total / count, rel=1e-3, abs=1e-4)
        ]


# ---- refinements that speak of the critique ------------------------------------------------------


def second_says(monkeypatch, *texts: str) -> None:
    """Phase 2 samples these texts in turn."""
    sample, said = trl_seams.sample, cycle(texts)

    def scripted(trainer, prompts, num_generations=1):
        sampled = sample(trainer, prompts, num_generations)
        if num_generations > 1:
            return sampled
        spoken = [next(said) for _ in prompts]
        ids = [trainer.sampler.completion_ids(text) for text in spoken]
        return Sampled(
            sampled.prompt_ids,
            ids,
            None,
            [[{"role": "assistant", "content": text}] for text in spoken],
        )

    monkeypatch.setattr(trl_seams, "sample", scripted)


@pytest.mark.parametrize(("mentions", "chosen"), [("keep", [3, 7]), ("drop", [])])
def test_a_refinement_that_speaks_of_the_critique_is_counted_and_on_request_dropped(
    tiny_policy, tmp_path, monkeypatch, mentions, chosen
) -> None:
    second_says(monkeypatch, "as you noted: 5")
    settings = {
        "refine_mentions": mentions,
        "distill_weight": 1.0,
        "distill_normalizer": "rollouts",
    }
    trainer = ours(tiny_policy, tmp_path, Turns([0.0] * 6, [1.0] * 6), Words(), **settings)
    output = generated(trainer)
    batch = trainer.generation
    assert trainer._metrics["train"]["refine/mentions"] == [6]
    assert batch.refined == chosen
    assert [refinement.chosen for _, _, refinement in batch.refinements].count(True) == len(chosen)
    # neither the scalar nor the refine term trains on the slot of a dropped one
    assert output["advantages"][[3, 7]].tolist() == [0.0, 0.0]
    assert output["refine_credit"].nonzero().flatten().tolist() == chosen
    assert batch.off_policy == ([] if chosen else [3, 7])
    assert output["distill_tokens"] == output["completion_mask"][[0, 1, 2, 4, 5, 6]].sum()
    assert math.isfinite(trainer._compute_loss(trainer.model, output).item())


def test_another_candidate_takes_the_slot_of_a_dropped_one(
    tiny_policy, tmp_path, monkeypatch
) -> None:
    second_says(monkeypatch, "as you noted: 5", "5", "6")
    # of each group's three candidates the first is right but speaks of the critique, the second is
    # right too
    trainer = ours(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0, 1.0, 0.0] * 2),
        Words(),
        refine_mentions="drop",
    )
    output = generated(trainer)
    assert trainer.generation.refined == [3, 7]
    assert [completion_text(trainer, output, row) for row in (3, 7)] == ["5", "5"]
    assert trainer._metrics["train"]["refine/mentions"] == [2]


def test_a_dropped_refinement_is_not_in_the_rollouts_baseline_nor_among_their_tokens(
    tiny_policy, tmp_path, monkeypatch
) -> None:
    second_says(monkeypatch, "as you noted: 5")
    settings = {"refine_mentions": "drop", "baseline": "rollouts", "scale_rewards": "none"}
    trainer = ours(
        tiny_policy, tmp_path, Turns([1.0, 0.0, 0.0] * 2, [1.0] * 4), Words(), **settings
    )
    output = generated(trainer)
    # the mean of the three rollouts is 1/3, that of all four rows would be 1/2
    assert output["advantages"].tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3, 0.0] * 2)
    assert output["num_items_in_batch"] == output["completion_mask"][[0, 1, 2, 4, 5, 6]].sum()


# ---- expert traces in reserved rows --------------------------------------------------------------


def test_an_experts_trace_fills_the_slot_and_is_nobodys_sample(tiny_policy, tmp_path) -> None:
    trainer = ours(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0, 1.0]),
        refine_column="solution",
        max_completion_length=20,
    )
    output = generated(trainer)
    assert [completion_text(trainer, output, row) for row in (3, 7)] == list(SOLUTIONS)
    assert completion_tokens(output, 3)[-1] == trainer.processing_class.eos_token_id
    assert torch.equal(output["prompt_ids"][3], output["prompt_ids"][2])
    assert trainer.generation.refined == [3, 7]
    # TRL's default: [0, 0, 0, 1] minus 1/4, over std (ddof 1) .5 + 1e-4: .75 / .5001 = 1.4997, -.25
    # / .5001 = -.4999
    assert output["refine_credit"].tolist() == pytest.approx(
        [0, 0, 0, 1.4997, 0, 0, 0, 1.4997], abs=1e-4
    )
    assert output["advantages"].tolist() == pytest.approx(
        [-0.4999, -0.4999, -0.4999, 0] * 2, abs=1e-4
    )
    # 15 + 10 characters and two ends
    assert trainer.tokens["tokens/expert"] == 27
    rollouts = [0, 1, 2, 4, 5, 6]
    assert (
        trainer.tokens["tokens/rollout"]
        == trainer.generated_tokens
        == output["completion_mask"][rollouts].sum()
    )
    metrics = trainer._metrics["train"]
    assert metrics["refine/experts"] == metrics["refine/right_experts"] == [2]
    trainer._compute_loss(trainer.model, output).backward()
    assert metrics["loss/refine"][0] != 0


def test_traces_that_are_missing_or_too_long_are_counted_and_plain_samples_stand_in(
    tiny_policy, tmp_path
) -> None:
    rows = [
        {**row, "solution": solution}
        for row, solution in zip(DATA.select(range(2)), ("x" * 21, None), strict=True)
    ]
    data = Dataset.from_list(rows * 4)
    trainer = ours(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0, 1.0]),
        data=data,
        refine_column="solution",
        max_completion_length=20,
    )
    output = generated(trainer, rows)
    metrics = trainer._metrics["train"]
    assert metrics["refine/traces_too_long"] == metrics["refine/traces_missing"] == [1]
    assert "refine/experts" not in metrics
    assert trainer.generation.refined == trainer.generation.off_policy == []
    assert output["refine_credit"].abs().sum() == 0
    # plain samples are rollouts like any: [0, 0, 0, 1] gives the last the highest advantage, and
    # their tokens were generated
    assert output["advantages"][[3, 7]].tolist() == pytest.approx([1.4997, 1.4997], abs=1e-4)
    assert trainer.generated_tokens == output["completion_mask"].sum()


def test_with_two_slots_the_trace_takes_one_and_a_plain_sample_the_other(
    tiny_policy, tmp_path
) -> None:
    settings = {"refine_column": "solution", "refine_slots": 2, "max_completion_length": 20}
    trainer = ours(tiny_policy, tmp_path, Turns([0.0] * 4, [1.0] * 4), **settings)
    output = generated(trainer)
    assert trainer.generation.refined == [2, 6]
    assert [completion_text(trainer, output, row) for row in (2, 6)] == list(SOLUTIONS)
    assert output["advantages"][[3, 7]].min() > 0


# ---- what keeps the refine skill -----------------------------------------------------------------


def test_the_own_term_is_the_nll_of_right_refinements_under_their_own_prompt(
    tiny_policy, tmp_path
) -> None:
    # the first group's refinement is right, the second's wrong
    trainer = ours(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0] * 3 + [0.0] * 3),
        Words(),
        **OFF,
        refine_own_weight=2.0,
    )
    output = generated(trainer)
    assert output["own_mask"].tolist() == [False] * 3 + [True] + [False] * 4
    completion = completion_tokens(output, 3)
    prompt = prompt_tokens(
        trainer, f"{QUESTIONS[0]}\n{completion_text(trainer, output, 0)}\n> {WORDS}"
    )
    naive = -2 * logps_of(trainer.model, prompt, completion).mean()
    loss = trainer._compute_loss(trainer.model, output)
    assert loss.item() == pytest.approx(naive.item(), rel=1e-5)
    assert trainer._metrics["train"]["loss/own"] == [pytest.approx(naive.item(), rel=1e-5)]
    same_gradient(loss, naive.float(), trainer.model)
    # log-probs under the refine prompt minus those under the question
    with torch.no_grad():
        plain = (
            logps_of(trainer.model, prompt_tokens(trainer, QUESTIONS[0]), completion).mean().item()
        )
    assert trainer._metrics["train"]["refine/kl"] == [
        pytest.approx(-naive.item() / 2 - plain, abs=1e-4)
    ]


def test_the_anchor_is_nothing_at_the_base_and_the_kl_to_it_elsewhere(
    tiny_policy, tmp_path
) -> None:
    trainer = ours(
        tiny_policy, tmp_path, Turns([0.0] * 6, [1.0] * 6), Words(), **OFF, refine_anchor_weight=1.0
    )
    output = generated(trainer)
    loss = trainer._compute_loss(trainer.model, output)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    assert (
        max(p.grad.abs().max().item() for p in trainer.model.parameters() if p.grad is not None)
        < 1e-6
    )
    moved(trainer)
    base, total, tokens = (
        AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32),
        0.0,
        0,
    )
    for row, attempt in ((3, 0), (7, 4)):
        completion = completion_tokens(output, row)
        prompt = prompt_tokens(
            trainer,
            f"{QUESTIONS[row // 4]}\n{completion_text(trainer, output, attempt)}\n> {WORDS}",
        )
        with torch.no_grad():
            kept = torch.softmax(logits_of(base, prompt, completion), -1)
        total = (
            total
            + (
                kept
                * (kept.log() - torch.log_softmax(logits_of(trainer.model, prompt, completion), -1))
            ).sum()
        )
        tokens += len(completion)
    loss = trainer._compute_loss(trainer.model, output)
    assert loss.item() == pytest.approx((total / tokens).item(), rel=1e-4)
    same_gradient(loss, (total / tokens).float(), trainer.model)


def test_both_are_finite_in_training_with_and_without_a_right_refinement(
    tiny_policy, tmp_path
) -> None:
    settings = {"refine_own_weight": 0.5, "refine_anchor_weight": 0.5, "max_steps": 2}
    trainer = ours(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0] * 6, [0.0] * 6, [0.0] * 6),
        Words(),
        **settings,
    )
    trainer.train()
    first, second = (row["loss/own"] for row in trainer.state.log_history if "loss/own" in row)
    assert first > 0
    assert second == 0.0


# ---- credit through the trainer ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "rollouts", "refinement"),
    [
        # rollouts 1, 0, 0 and a right refinement: the mean of four is 1/2, of three 1/3
        ({}, [0.5, -0.5, -0.5], 0.5),
        ({"baseline": "rollouts"}, [2 / 3, -1 / 3, -1 / 3], 2 / 3),
        ({"credit": "signed"}, [1.0, -1.0, -1.0], 1.0),
        # weights are the rollouts' own
        (
            {"credit": "signed", "positive_weight": 0.1, "negative_weight": 2.0},
            [0.1, -2.0, -2.0],
            1.0,
        ),
        ({"positive_weight": 0.0}, [0.0, -0.5, -0.5], 0.5),
        # nll weighs right refinements by 1
        ({"refine_ratio": "nll"}, [0.5, -0.5, -0.5], 1.0),
    ],
)
def test_credit_by_hand(tiny_policy, tmp_path, settings, rollouts, refinement) -> None:
    reward = Turns([1.0, 0.0, 0.0] * 2, [1.0] * 4)
    trainer = ours(tiny_policy, tmp_path, reward, Words(), **{"scale_rewards": "none", **settings})
    output = generated(trainer)
    assert output["advantages"].tolist() == pytest.approx([*rollouts, 0.0] * 2, abs=1e-5)
    assert output["refine_credit"].tolist() == pytest.approx(
        [0.0, 0.0, 0.0, refinement] * 2, abs=1e-5
    )


def test_signed_credit_of_what_could_not_be_judged_is_nothing(tiny_policy, tmp_path) -> None:
    trainer = ours(tiny_policy, tmp_path, Turns([1.0, None, 0.0, 1.0] * 2), credit="signed")
    assert generated(trainer)["advantages"].tolist() == [1.0, 0.0, -1.0, 1.0] * 2


# ---- micro batches, iterations, evaluation -------------------------------------------------------


@pytest.mark.parametrize("mode", ["advantage", "sampled", "topk", "full"])
def test_with_iterations_and_accumulation_micro_batches_stay_as_they_are(
    tiny_policy, tmp_path, mode
) -> None:
    both = (
        {}
        if mode in ("advantage", "sampled")
        else {"distill_target": "both", "refine_own_weight": 0.1}
    )
    settings = {
        "distill_weight": 1.0,
        "distill_mode": mode,
        "distill_teacher": "ema",
        "num_iterations": 2,
        "gradient_accumulation_steps": 2,
        **both,
    }
    # 16 rows a generation, 12 of them rollouts
    trainer = ours(
        tiny_policy,
        tmp_path,
        Turns([1.0, 0.0, 0.0] * 4, [1.0] * 12),
        Words(),
        **settings,
        max_steps=4,
    )
    compute, before = (
        trainer._compute_loss,
        {name: value.clone() for name, value in trainer.model.state_dict().items()},
    )
    seen = []

    def watched(model, inputs):
        copies = {name: value.clone() for name, value in inputs.items()}
        loss = compute(model, inputs)
        assert inputs.keys() == copies.keys()
        assert all(torch.equal(value, copies[name]) for name, value in inputs.items())
        seen.append((id(inputs), inputs["advantages"].dim(), loss.item()))
        return loss

    trainer._compute_loss = watched
    trainer.train()
    # two micro batches a step; those of a generation come back in its second iteration
    assert [number for number, _, _ in seen[:2]] == [number for number, _, _ in seen[2:4]]
    assert all(dim == 1 and math.isfinite(value) for _, dim, value in seen)
    assert len(seen) == 8
    assert any(
        not torch.equal(before[name], value) for name, value in trainer.model.state_dict().items()
    )


def test_micro_batches_add_up_to_the_whole_batch(tiny_policy, tmp_path) -> None:
    # four micro batches of two rows a generation, two of them a step: each step's sum is over half
    # of the tokens, so the two steps' mean is the whole's
    settings = {
        **DISTILL,
        "distill_mode": "full",
        "distill_teacher": "base",
        "per_device_train_batch_size": 2,
    }
    trainer = ours(
        tiny_policy,
        tmp_path,
        Turns(HALF),
        Words(),
        **settings,
        gradient_accumulation_steps=2,
        steps_per_generation=4,
    )
    moved(trainer)
    output = generated(trainer)
    trainer.current_gradient_accumulation_steps = 2
    parts = [
        {name: value[i : i + 2] if value.ndim else value for name, value in output.items()}
        for i in range(0, 8, 2)
    ]
    apart = sum(trainer._compute_loss(trainer.model, part) for part in parts) / 2
    trainer.args.steps_per_generation = trainer.current_gradient_accumulation_steps = 1
    torch.testing.assert_close(apart, trainer._compute_loss(trainer.model, output))


@pytest.mark.parametrize("mode", ["advantage", "topk"])
def test_a_held_out_set_can_be_evaluated_while_distilling(tiny_policy, tmp_path, mode) -> None:
    settings = {
        **LAB,
        **DISTILL,
        "distill_mode": mode,
        "max_steps": 1,
        "per_device_eval_batch_size": 8,
    }
    reward = lambda completions, **columns: [0.0] * len(completions)  # noqa: E731
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        reward,
        DATA,
        settings=settings,
        critic=Words(),
        eval_dataset=DATA.select(range(2)),
    )
    trainer.train()
    assert math.isfinite(trainer.evaluate()["eval_loss"])


def test_while_the_critique_is_held_no_teacher_adds_to_the_advantages(
    tiny_policy, tmp_path
) -> None:
    settings = {"distill_mode": "advantage", "scalar_normalizer": "subset", "credit": "signed"}
    trainer = ours(
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


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sampled", "advantage"])
@pytest.mark.parametrize("target", ["refinements", "both"])
def test_sampled_token_forms_are_refused_on_refinements_with_the_reason(mode, target) -> None:
    with pytest.raises(
        ValueError,
        match=rf"distill_mode {mode}: got distill_target '{target}', .* on the policy's own tokens only\. Use .* topk or full",
    ):
        CritiqueGRPOConfig(
            "x", **SETTINGS, distill_weight=1.0, distill_mode=mode, distill_target=target
        )
    CritiqueGRPOConfig(
        "x", **SETTINGS, distill_mode=mode, distill_target=target
    )  # off: nothing to refuse


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"distill_weight": 1.0},
            "distill_context 'critique' without a critic would train nothing",
        ),
        ({"refine_own_weight": 1.0}, "refine_own_weight: got 1.0 without refinements"),
        (
            {"refine_anchor_weight": 1.0, "refine_column": "solution"},
            "refine_anchor_weight: got 1.0 without refinements",
        ),
    ],
)
def test_a_term_that_would_be_nothing_without_a_critic_is_refused(
    tiny_policy, tmp_path, settings, message
) -> None:
    with pytest.raises(ValueError, match=message):
        ours(tiny_policy, tmp_path, Turns([0.0] * 8), **settings)


@pytest.mark.parametrize(
    ("alpha", "warns"),
    [(0.05, True), (0.95, True), (0.0, False), (0.1, False), (0.5, False), (1.0, False)],
)
def test_an_alpha_beside_0_or_1_is_warned_of(alpha, warns) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CritiqueGRPOConfig("x", **SETTINGS, distill_weight=1.0, distill_alpha=alpha)
    told = [str(warning.message) for warning in caught if "distill_alpha" in str(warning.message)]
    assert told == (
        [
            f"distill_alpha {alpha}: the family is discontinuous at 0 and 1, and nearly flat beside them; use 0, 1 or .1 to .9"
        ]
        if warns
        else []
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distill_alpha": 1.5}, "distill_alpha: got 1.5, expected a number from 0 to 1"),
        ({"distill_ema": 0.0}, "distill_ema: got 0.0, expected a number from 1e-12 to 1"),
        ({"distill_mode": "top_k"}, "distill_mode: got 'top_k'.*did you mean 'topk'"),
        ({"distill_weight": -1.0}, "distill_weight: got -1.0, expected a number from 0 to inf"),
        (
            {"baseline": "rollouts", "scale_rewards": "group"},
            "baseline rollouts: got scale_rewards='group', expected 'none'",
        ),
    ],
)
def test_bad_options_say_got_and_expected(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        CritiqueGRPOConfig("x", **{**SETTINGS, **settings})
