"""A critic that answers while the next batch is sampled: order, log-probs, counts, restarts."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import date

import numpy as np
import pytest
import torch
from fault_server import serving
from known_critics import Words
from lab_trainers import LAB, logps_of, prompt_tokens
from tiny_trainers import dataset, even, history, trainer_of
from transformers import TrainerCallback

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.chat import ApiChat, LocalChat, PolicyChat
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.controls import NoisyCritic
from critique_rl.sampling.recorded_logps import RecordedLogps
from critique_rl.trainer.checkpoint import copy_checkpoint, last_sealed
from critique_rl.trainer.rollout.in_flight import with_plain_details
from critique_rl.trainer.rollout.phases import FirstPhase
from critique_rl.trainer.rollout.sampled import Sampled
from critique_rl.trainer.rollout.scoring import Judged
from critique_rl.types import Attempt, Critique, Usage, Verdict

NOISY = NoisyCritic(ChatCritic(LocalChat("lab/critic")), Words("x"), 0.5)
STALE = {**LAB, "critique_staleness": 1, "refine_slots": 1, "learning_rate": 1e-3}


class Background:
    """Answers once it is waited for, and keeps a list of what happened."""

    name = "background"

    def __init__(self):
        self.events: list[tuple[str, tuple[str, ...]]] = []

    def begin(self, attempts):
        texts = tuple(attempt.text for attempt in attempts)
        self.events.append(("asked", texts))

        def wait():
            self.events.append(("read", texts))
            usage = Usage(prompt_tokens=10, completion_tokens=2)
            return [Critique("words", self.name, usage=usage) for _ in attempts]

        return wait

    def critique(self, attempts):
        raise AssertionError("it was asked in the foreground")


def build(policy, folder, critic=None, **changes) -> CritiqueGRPOTrainer:
    return trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        policy,
        folder,
        even,
        settings={**STALE, **changes},
        critic=critic or Background(),
    )


def logged(trainer, name: str) -> list[float]:
    return [row[name] for row in trainer.state.log_history if name in row]


def test_the_critic_is_asked_about_a_batch_once_it_has_answered_on_the_one_before(
    tiny_policy, tmp_path
) -> None:
    critic = Background()
    trainer = build(tiny_policy, tmp_path, critic)
    trained = []
    trainer.on_generation = lambda batch, credit: trained.append(
        tuple(attempt.text for attempt in batch.attempts if attempt.verdict.failed)
    )
    trainer.train()
    kinds = [kind for kind, _ in critic.events]
    assert kinds == ["asked", "read"] * 4
    asked = [texts for kind, texts in critic.events if kind == "asked"]
    assert [texts for kind, texts in critic.events if kind == "read"] == asked
    # Three steps train the first three batches; the fourth was in flight at the end.
    assert trained == asked[:3]
    assert logged(trainer, "critique/staleness") == [0, 1, 1]


def test_refinements_are_sampled_in_one_call_with_the_next_batch(tiny_policy, tmp_path) -> None:
    trainer = build(tiny_policy, tmp_path, refine_with_next=True)
    calls = []
    sample = trainer.sampler.sample

    def count(prompts, num_generations=1):
        calls.append([prompt[-1]["content"] for prompt in prompts])
        return sample(prompts, num_generations)

    trainer.sampler.sample = count
    seen = []
    trainer.on_generation = lambda batch, credit: seen.append(batch)
    trainer.train()
    # The first batch, then one call per step: 6 rollouts, and what the two groups' slots take.
    assert len(calls) == 4
    assert len(calls[0]) == 6
    for call, batch in zip(calls[1:], seen, strict=True):
        second = batch.refinements + batch.plain
        assert len(call) == 6 + len(second)
        assert len(second) >= 2
        texts = [refinement.text for _, _, refinement in batch.refinements]
        assert len(texts) == sum("words" in prompt for prompt in call)
    assert sum(len(batch.refinements) for batch in seen) > 3


def test_the_first_questions_are_sampled_twice_and_all_tokens_are_counted(
    tiny_policy, tmp_path
) -> None:
    critic = Background()
    trainer = build(tiny_policy, tmp_path, critic)
    seen = []
    sampled = []
    sample = trainer.rollout.sample_rollouts

    def count(prompts):
        rollouts = sample(prompts)
        sampled.append(rollouts.completion_tokens)
        return rollouts

    trainer.rollout.sample_rollouts = count
    trainer.on_generation = lambda batch, credit: seen.append(batch)
    trainer.train()
    questions = [[attempt.question for attempt in batch.attempts] for batch in seen]
    assert questions[0] == questions[1]
    assert questions[1] != questions[2]
    texts = [[attempt.text for attempt in batch.attempts] for batch in seen]
    assert texts[0] != texts[1]
    critiques = sum(len(texts) for kind, texts in critic.events if kind == "read")
    assert trainer.tokens["tokens/critic_prompt"] == 10 * critiques
    plain = 0
    for batch in seen:
        for row, ids in enumerate(batch.columns["completion_ids"]):
            is_second = batch.order[row] >= len(batch.attempts)
            if is_second and row not in batch.refined + batch.off_policy:
                plain += len(ids)
    assert len(sampled) == 4
    # Log-probs of the four were recorded while they were sampled.
    assert trainer.tokens["tokens/scored"] == 0
    assert trainer.tokens["tokens/rollout"] == sum(sampled) + plain


def test_without_recorded_log_probs_a_pass_takes_them(
    tiny_policy, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = build(tiny_policy, tmp_path / "recorded")
    recorded.train()
    silent = build(tiny_policy, tmp_path / "passed")
    # As with continuous batching, which does not call the model once per token.
    monkeypatch.setattr(
        silent.sampler, "recorded_logps", lambda number: nullcontext(RecordedLogps(1.0, number))
    )
    silent.train()
    assert silent.tokens["tokens/scored"] > recorded.tokens["tokens/scored"] == 0
    assert silent.tokens["tokens/rollout"] == recorded.tokens["tokens/rollout"]
    assert logged(silent, "loss/refine") == pytest.approx(logged(recorded, "loss/refine"), abs=1e-5)


@pytest.mark.parametrize("kwargs", [{"num_beams": 2}, {"guidance_scale": 1.5}], ids=str)
def test_samplers_that_cannot_be_recorded_have_ratios_of_one_at_the_start(
    kwargs, tiny_policy, tmp_path
) -> None:
    trainer = build(tiny_policy, tmp_path, generation_kwargs=kwargs, learning_rate=0.0)
    trainer.train()
    assert trainer.tokens["tokens/scored"] > 0
    # The policy stays the same, so no ratio may leave 1.
    assert logged(trainer, "clip_ratio/region_mean") == [0.0] * len(logged(trainer, "loss"))


class Weights(TrainerCallback):
    """Keeps the policy's weights before each step."""

    def __init__(self):
        self.kept: list[dict] = []

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        copies = {name: value.clone() for name, value in model.state_dict().items()}
        self.kept.append(copies)


def test_old_log_probs_are_of_the_policy_that_sampled(tiny_policy, tmp_path) -> None:
    trainer = build(tiny_policy, tmp_path, learning_rate=1e-2)
    weights = Weights()
    trainer.add_callback(weights)
    outputs = []
    make = trainer._generate_and_score_completions

    def keep(inputs):
        outputs.append((make(inputs), trainer.generation))
        return outputs[-1][0]

    trainer._generate_and_score_completions = keep
    trainer.train()
    model = trainer.model.eval()
    # The third step trains what the second step's policy sampled.
    output, batch = outputs[2]
    rollouts = [row for row, number in enumerate(batch.order) if number < len(batch.attempts)]
    assert len(rollouts) == 6
    apart = 0.0
    for row in rollouts:
        ids = output["completion_ids"][row][output["completion_mask"][row].bool()].tolist()
        question = batch.attempts[batch.order[row]].question
        prompt = prompt_tokens(trainer, question)
        old = output["old_per_token_logps"][row][: len(ids)]
        model.load_state_dict(weights.kept[1])
        torch.testing.assert_close(old.double(), logps_of(model, prompt, ids), atol=1e-5, rtol=0)
        model.load_state_dict(weights.kept[2])
        apart = max(apart, (old - logps_of(model, prompt, ids)).abs().max().item())
    assert apart > 1e-3, "policies that agree prove nothing"
    others = [row for row in range(len(batch.order)) if row not in rollouts]
    # Rows of the newest policy have its live log-probs, which the loss fills in.
    assert output["old_per_token_logps"][others].isnan().all()


def test_ratios_differ_from_1_on_older_rollouts_alone(tiny_policy, tmp_path) -> None:
    trainer = build(tiny_policy, tmp_path, learning_rate=1e-2, epsilon=1e-4)
    trainer.train()
    clipped = logged(trainer, "clip_ratio/region_mean")
    assert clipped[0] == 0
    assert max(clipped[1:]) > 0


TWICE = {
    "num_iterations": 2,
    "steps_per_generation": 2,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
}


CHOSEN = {"critique_share": 0.5, "critique_explore": 0.5, "critique_reuse": True}


@pytest.mark.parametrize("changes", [{}, TWICE, {"refine_with_next": True}, CHOSEN])
def test_a_restart_goes_on_with_the_batch_in_flight(tiny_policy, tmp_path, changes) -> None:
    saves = {"save_strategy": "steps", "save_steps": 1, **changes}
    steps = 11 if changes == TWICE else 5
    whole = build(tiny_policy, tmp_path / "whole", max_steps=steps, **saves)
    whole.train()
    part = tmp_path / "part"
    build(tiny_policy, part, max_steps=steps // 2, **saves).train()
    assert (last_sealed(part) / "in_flight-rank0.json").exists()
    continued = build(tiny_policy, part, max_steps=steps, **saves)
    continued.train(resume_from_checkpoint=True)
    assert history(continued) == history(whole)
    pairs = zip(
        continued.model.state_dict().values(), whole.model.state_dict().values(), strict=True
    )
    assert all(torch.equal(got, wanted) for got, wanted in pairs)
    assert continued.tokens == whole.tokens
    for totals in (continued.critique_totals, whole.critique_totals):
        totals.pop("critique/seconds")
    assert continued.critique_totals == whole.critique_totals


def test_a_run_that_was_killed_after_its_last_step_counts_as_one_that_was_not(
    tiny_policy, tmp_path
) -> None:
    whole = build(tiny_policy, tmp_path, save_strategy="steps", save_steps=1)
    whole.train()
    restored = build(tiny_policy, tmp_path)
    restored.restore(last_sealed(tmp_path))
    assert restored.tokens == whole.tokens
    assert restored.tokens["tokens/critic_prompt"] > 0


def test_a_checkpoint_without_its_batch_says_so_and_samples_anew(
    tiny_policy, tmp_path, caplog
) -> None:
    saves = {"save_strategy": "steps", "save_steps": 1}
    build(tiny_policy, tmp_path / "part", max_steps=2, **saves).train()
    # As a branch gets it, whose groups may be others.
    copy_checkpoint(last_sealed(tmp_path / "part"), tmp_path / "copy")
    other = build(tiny_policy, tmp_path / "copy", max_steps=4, **saves)
    other.train(resume_from_checkpoint=True)
    assert "does not hold a batch in flight" in caplog.text
    assert logged(other, "critique/staleness")[-2:] == [0, 1]


def test_without_a_critic_in_the_background_nothing_is_hidden_and_all_else_holds(
    tiny_policy, tmp_path
) -> None:
    trainer = build(tiny_policy, tmp_path, Words())
    trainer.train()
    assert logged(trainer, "critique/staleness") == [0, 1, 1]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [("uneven", "ok"), ("hang", "failed/step deadline"), ("reset-at-once", "failed/connection")],
)
def test_a_server_that_is_slow_or_silent_costs_critiques_and_no_step(
    tiny_policy, tmp_path, fault, outcome
) -> None:
    # Only the one that never answers is to meet its deadline.
    deadline = 2.0 if fault == "hang" else 60.0
    with serving() as server:
        server.always = fault
        endpoint = Endpoint(
            server.url, "m", attempts=1, step_deadline=deadline, circuit_failures=99
        )
        trainer = build(tiny_policy, tmp_path, ChatCritic(ApiChat(endpoint, tmp_path / "critic")))
        seen = []
        trainer.on_generation = lambda batch, credit: seen.append(batch)
        trainer.train()
    assert trainer.state.global_step == 3
    critiques = [pair for batch in seen for pair in batch.critiques.items()]
    assert len(critiques) > 3
    for batch in seen:
        for place, critique in batch.critiques.items():
            assert critique.status == outcome.partition("/")[0]
            # "echo" and the prompt, in which the attempt stands: no answer is another attempt's.
            words = batch.attempts[place].text if critique.status == "ok" else ""
            assert words in critique.text
    totals = trainer.critique_totals
    assert totals[f"critique/{outcome}"] == len(critiques)
    assert totals["critique/failed_rollouts"] == len(critiques) + totals["critique/not_asked"]


@pytest.mark.parametrize(
    ("critic", "changes", "words"),
    [
        (ChatCritic(PolicyChat()), {}, "the policy itself, expected one that answers while"),
        (ChatCritic(LocalChat("lab/critic")), {}, "a model in this process"),
        (NOISY, {}, "a model in this process"),
        (None, {"refine_turns": 2}, "with refine_turns 2"),
        (None, {"critique_staleness": 2}, "expected 0 or 1"),
        (None, {"critique_staleness": 0, "refine_with_next": True}, "refine_with_next: got"),
        (None, {"refine_slots": 0, "refine_with_next": True}, "there is no refinement to sample"),
        (None, {"critique_staleness": True}, "expected a whole number"),
    ],
)
def test_what_cannot_be_stale_is_refused(tiny_policy, tmp_path, critic, changes, words) -> None:
    with pytest.raises(ValueError, match=words):
        build(tiny_policy, tmp_path, critic, **changes)


def test_rows_that_no_checkpoint_holds_are_refused_at_once(tiny_policy, tmp_path) -> None:
    rows = dataset()
    rows = rows.add_column("day", [date(2026, 1, 1)] * len(rows))
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        even,
        rows,
        settings=STALE,
        critic=Background(),
    )
    with pytest.raises(ValueError, match="got a date in the column 'day'"):
        trainer.train()


def test_details_of_a_verdict_are_read_alike_before_and_after_a_restart() -> None:
    details = {(1, 2): {3}, "span": (1, 2), 4: np.float32(0.5), "deep": {"a": [None, True, "x"]}}
    verdict = Verdict("wrong", reason="no", details=details)
    attempt = Attempt("q", "text", verdict)
    judged = Judged(torch.zeros(1, 1), [0.0], [verdict])
    first = with_plain_details(FirstPhase(Sampled([[1]], [[2]], None, ["text"]), judged, [attempt]))
    [plain] = first.judged.verdicts
    assert plain.details == {
        "(1, 2)": "{3}",
        "span": [1, 2],
        "4": 0.5,
        "deep": {"a": [None, True, "x"]},
    }
    assert json.loads(json.dumps(plain.details)) == plain.details
    assert first.attempts[0].verdict is plain


def test_a_critic_that_changes_what_it_reads_changes_nothing_else(tiny_policy, tmp_path) -> None:
    class Careless(Background):
        def begin(self, attempts):
            wait = super().begin(attempts)
            for attempt in attempts:
                attempt.row.clear()
            return wait

    trainer = build(tiny_policy, tmp_path, Careless())
    trainer.train()
    assert len(logged(trainer, "loss")) == 3
