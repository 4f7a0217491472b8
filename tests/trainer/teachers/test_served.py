"""A teacher behind a server: its log-probs are those of the weights that it serves, and what does
not come trains nothing.
"""

from __future__ import annotations

import re

import pytest
import torch
from known_critics import Turns, Words, WordsPerProblem, generated
from lab_trainers import DISTILL, context_tokens, critique_trainer, logps_of, move_weights
from scoring_server import serving
from transformers import AutoModelForCausalLM

from critique_rl.critic.contract import CriticFailed

pytestmark = pytest.mark.processes
SAMPLED = {**DISTILL, "distill_mode": "sampled"}
FORMS = {"prompt_logprobs": "", "echo": "echo"}
"""How it is asked -> the server's fault that brings it about."""


@pytest.fixture(scope="module")
def server(tiny_policy):
    with serving(tiny_policy) as running:
        yield running


@pytest.fixture(autouse=True)
def as_new(server):
    server.fault = ""
    server.asked.clear()


def endpoint(server, **more) -> dict:
    quick = {"attempts": 1, "attempt_deadline": 10, "circuit_failures": 99}
    return {"base_url": server.url, "model": "m", **quick, **more}


def trainer_with(policy, folder, teacher, **settings):
    critic = WordsPerProblem() if "distill_contrast" in settings else Words()
    options = {**SAMPLED, "distill_teacher": teacher, **settings}
    return critique_trainer(policy, folder, Turns([0.0] * 8), critic, **options)


@pytest.mark.parametrize("form", FORMS)
def test_its_log_probs_are_those_of_the_weights(tiny_policy, tmp_path, server, form) -> None:
    server.fault = FORMS[form]
    trainer = trainer_with(tiny_policy, tmp_path, endpoint(server))
    assert trainer.served_teacher.form == form
    output = generated(trainer)
    reader = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
    assert output["distill_mask"].all()
    for row in range(8):
        real = output["completion_mask"][row].bool()
        completion = output["completion_ids"][row][real].tolist()
        expected = logps_of(reader, context_tokens(output, row), completion)
        logps = output["context_logps"][row]
        torch.testing.assert_close(logps[real], expected.float(), atol=2e-5, rtol=1e-5)
        assert not logps[~real].any()
    # the probe and eight rows; the tokens that it counts are its own owner's
    read = sum(len(request["prompt"]) for request in server.asked[-8:])
    assert trainer.tokens["tokens/served_teacher"] == read
    assert not trainer.tokens["tokens/teacher"]
    assert trainer.costs()["total_tokens"] >= read


@pytest.mark.parametrize(
    "mode",
    [
        {"distill_mode": "sampled", "distill_prefix": True},
        {"distill_mode": "advantage", "distill_contrast": "shuffled"},
    ],
)
def test_a_training_is_that_with_the_same_weights_in_process(
    tiny_policy, tmp_path, server, mode
) -> None:
    rows = []
    for teacher in ({"model": tiny_policy}, endpoint(server)):
        folder = tmp_path / str(len(rows))
        # Not Adam: its first steps are of one size, however small a difference of gradients is.
        plain = {"optim": "sgd", "learning_rate": 0.3, "max_steps": 3, "num_iterations": 2}
        trainer = trainer_with(tiny_policy, folder, teacher, **plain, **mode)
        trainer.train()
        keys = ("loss", "grad_norm", "distill/log_ratio_failed", "distill/rows")
        rows.append(
            [{key: row.get(key, 0.0) for key in keys} for row in trainer.state.log_history[:-1]]
        )
        rows[-1].append(sum(p.double().sum().item() for p in trainer.model.parameters()))
    for ours, theirs in zip(*rows, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    assert any(row["grad_norm"] for row in rows[0][:-1])


def test_equal_rows_are_asked_for_once_and_a_second_time_never(
    tiny_policy, tmp_path, server
) -> None:
    priced = endpoint(server, prompt_price=3.0)
    folder = tmp_path / "teacher"
    for calls in (8, 0):
        trainer = trainer_with(tiny_policy, tmp_path, priced, teacher_folder=folder)
        server.asked.clear()
        torch.manual_seed(3)
        generated(trainer)
        assert len(server.asked) == calls
        counted = trainer.tokens["tokens/served_teacher"]
        # The journal begins anew with the run: what was paid for counts as it did then.
        assert counted > 0
        assert trainer.costs()["usd"] == pytest.approx(3e-6 * counted)


def test_a_resumed_run_reads_its_answers_from_the_cache_and_counts_them_as_before(
    tiny_policy, tmp_path, server
) -> None:
    settings = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "teacher_folder": tmp_path / "teacher",
    }
    teacher = endpoint(server, prompt_price=3.0)
    whole = trainer_with(tiny_policy, tmp_path / "run", teacher, **settings)
    whole.train()
    server.asked.clear()
    again = trainer_with(tiny_policy, tmp_path / "run", teacher, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert len(server.asked) == 1, "the probe"
    names = ("loss", "grad_norm", "cost/usd", "tokens/served_teacher", "distill/ok")
    logs = [trainer.state.log_history[:4] for trainer in (whole, again)]
    for one, other in zip(*logs, strict=True):
        assert [one[name] for name in names] == [other[name] for name in names]
    for ours, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# ---- what fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("dead", "connection"),
        ("other tokens", "bad response"),
        ("bos", "bad response"),
        ("hidden bos", "bad response"),
    ],
)
def test_a_call_that_fails_leaves_its_rows_without_distillation(
    tiny_policy, tmp_path, server, fault, reason
) -> None:
    trainer = trainer_with(tiny_policy, tmp_path, endpoint(server), max_steps=3)
    generate = trainer._generate_and_score_completions
    batches = []

    def watched(rows):
        server.fault = fault if len(batches) == 1 else ""
        batches.append(generate(rows))
        return batches[-1]

    trainer._generate_and_score_completions = watched
    trainer.train()
    taught = [int(batch["distill_mask"].sum()) for batch in batches]
    assert taught == [8, 0, 8]
    first, second, third = trainer.state.log_history[:3]
    assert second["distill/failed"] == second[f"distill/failed/{reason}"] == 8
    assert second["loss/distill"] == second["grad_norm"] == 0.0
    assert second["tokens/served_teacher"] >= first["tokens/served_teacher"]
    for row in (first, third):
        assert row["distill/ok"] == row["distill/rows"] == 8
        assert row["grad_norm"] > 0


def test_the_run_stops_where_the_teacher_may_not_fail(tiny_policy, tmp_path, server) -> None:
    trainer = trainer_with(tiny_policy, tmp_path, endpoint(server, on_failure="stop"))
    server.fault = "dead"
    with pytest.raises(CriticFailed, match="on_failure is stop: connection"):
        generated(trainer)


def test_caps_hold_and_what_exceeds_them_is_not_sent(tiny_policy, tmp_path, server) -> None:
    teacher = endpoint(server, caps={"max_requests": 4})
    trainer = trainer_with(tiny_policy, tmp_path, teacher, teacher_folder=tmp_path / "teacher")
    # the probe is the first request
    assert int(generated(trainer)["distill_mask"].sum()) == 3
    with pytest.raises(ValueError, match="prompt_logprobs: budget; echo: budget"):
        trainer_with(tiny_policy, tmp_path, teacher, teacher_folder=tmp_path / "teacher")


# ---- refusals at the start -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no log-probs", "no prompt_logprobs; echo: bad response: no logprobs"),
        ("dead", "prompt_logprobs: connection; echo: connection"),
        ("other texts", "holds 'q', and"),
        ("bos", "perhaps it adds BOS"),
    ],
)
def test_a_server_that_cannot_teach_is_refused_before_training(
    tiny_policy, tmp_path, server, fault, words
) -> None:
    server.fault = fault
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        trainer_with(tiny_policy, tmp_path, endpoint(server))
    assert f"distill_teacher: {server.url} gave no log-probs of a text" in str(raised.value)
    assert "distill_teacher: {model: FOLDER_OR_HUB_ID}" in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distill_mode": "topk"}, "distill_mode topk: got a teacher behind a server"),
        ({"temperature": 0.7}, "temperature: got 0.7 with a teacher behind a server"),
    ],
)
def test_settings_that_read_more_are_refused(tiny_policy, tmp_path, changes, words) -> None:
    teacher = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(ValueError, match=words):
        trainer_with(tiny_policy, tmp_path, teacher, **changes)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"temperature": 0.5}, "distill_teacher.temperature: got 0.5"),
        ({"max_tokens": 5}, "unknown key 'max_tokens'"),
        ({"extra_body": {"echo": True}}, "got 'echo', which the client sets itself"),
        ({"base_url": "http://u:secret@h/v1"}, "got an address with a password"),
        ({"api_key_env": "sk-1234567890abcdefghij"}, "got something else (not shown"),
    ],
)
def test_a_section_that_cannot_be_used_is_refused(tiny_policy, tmp_path, option, words) -> None:
    teacher = {"base_url": "http://127.0.0.1:1/v1", "model": "m", **option}
    with pytest.raises(ValueError, match=re.escape(words)) as raised:
        trainer_with(tiny_policy, tmp_path, teacher)
    assert "secret" not in str(raised.value)


def test_a_moved_policy_is_compared_with_a_teacher_that_stayed(
    tiny_policy, tmp_path, server
) -> None:
    trainer = trainer_with(tiny_policy, tmp_path, endpoint(server))
    move_weights(trainer)
    output = generated(trainer)
    loss = trainer._compute_loss(trainer.model, output)
    gradients = torch.autograd.grad(loss, list(trainer.model.parameters()))
    assert max(gradient.abs().max() for gradient in gradients) > 1e-3
