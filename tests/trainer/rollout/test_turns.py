"""Turns of refinement: chains, what is counted of each turn, what trains, what is refused."""

from __future__ import annotations

from collections import Counter

import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from known_critics import SOLUTIONS, Turns, Words, completion_text, generated
from lab_trainers import LAB, context_tokens, critique_trainer, prompt_tokens
from listed_rollouts import PROMPTS, ROWS, ListSampler, rollout_of
from tiny_runs import cli, write_pipeline
from tiny_trainers import even, trainer_of

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.config.durable_files import read_jsonl
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.chat import PolicyChat
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.contract import CriticFailed
from critique_rl.experiment.rollout_log import rollout_rows
from critique_rl.policy import resolve_model
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import VerifierReward
from critique_rl.trainer.model_card import describe_method
from critique_rl.trainer.rollout.completion_columns import completion_columns
from critique_rl.trainer.rollout.generation import Generation, count_generation
from critique_rl.trainer.rollout.phases import SecondPhase, SlotCandidate
from critique_rl.trainer.rollout.sampled import Sampled
from critique_rl.trainer.rollout.scoring import Judged
from critique_rl.types import Critique, Usage


class Scripted:
    """Says of each attempt in turn what its list says; None: it has nothing to say."""

    name = "scripted"

    def __init__(self, *words: str | None):
        self.words = iter(words)
        self.asked: list[list[str]] = []

    def critique(self, attempts):
        self.asked.append([attempt.text for attempt in attempts])
        return [self.one(next(self.words)) for _ in attempts]

    def one(self, words: str | None) -> Critique:
        if words is None:
            return Critique("", self.name, "skipped", "nothing to say")
        return Critique(words, self.name, usage=Usage(prompt_tokens=10, completion_tokens=2))


# ---- chains, by lists ----------------------------------------------------------------------------


def three_turns() -> tuple[Generation, Scripted, ListSampler]:
    """Group q: both rollouts fail; the chain of a is right in turn 3, that of b ends in turn 2,
    without words. Group r: one rollout fails, and its refinement is right at once.
    """
    critic = Scripted("one", "two", "three", "four", None, "five")
    sampler = ListSampler("a", "b", "c", "d+", "ee", "f", "g+", "hh", "k+")
    rollout, scorer = rollout_of(sampler, critic, refine_turns=9)
    batch = rollout.run(PROMPTS, ROWS)
    assert scorer.judged_rows == [4, 3, 1, 1]
    return batch, critic, sampler


def test_what_failed_is_refined_again_until_it_is_right_or_the_critic_has_no_words() -> None:
    batch, critic, sampler = three_turns()
    assert critic.asked == [["a", "b", "c"], ["ee", "f"], ["hh"]]
    assert sampler.asked == [
        ["q", "q", "r", "r"],
        ["q\na\n> one", "q\nb\n> two", "r\nc\n> three"],
        ["q\nee\n> four"],
        ["q\nhh\n> five"],
    ]
    # Numbers: rollouts 0 to 3, then ee 4, f 5, g+ 6, hh 7, k+ 8.
    chains = [(i, number, refined.turn) for i, number, refined in batch.refinements]
    assert chains == [(0, 4, 1), (1, 5, 1), (2, 6, 1), (0, 7, 2), (0, 8, 3)]
    last = batch.refinements[-1].refinement
    assert (last.attempt.text, last.critique.text, last.text) == ("hh", "five", "k+")
    assert sorted(batch.turn_critiques) == [4, 5, 7]


def test_the_last_refinement_of_a_chain_takes_the_row_under_the_plain_prompt() -> None:
    batch, _, _ = three_turns()
    assert batch.order == [0, 1, 8, 2, 3, 6]
    assert (batch.refined, batch.off_policy) == ([2, 5], [])
    assert [refined.chosen for _, _, refined in batch.refinements] == [
        False,
        False,
        True,
        False,
        True,
    ]
    assert batch.columns["prompt_ids"] == [[ord(prompt)] for prompt in PROMPTS]
    texts = ["".join(map(chr, ids)) for ids in batch.columns["completion_ids"]]
    assert texts == ["a", "b", "k+", "c", "d+", "g+"]


def test_every_turn_is_counted_and_the_turns_add_up() -> None:
    batch, _, _ = three_turns()
    counts = batch.counts + count_generation(batch, group_size=3, slots=1)
    turns = {name: count for name, count in counts.items() if name.startswith("refine/turn/")}
    # Tokens are characters. Turn 1 reads "q\na\n> one", "q\nb\n> two" (9 each) and "r\nc\n> three".
    assert turns == {
        "refine/turn/1/asked": 3,
        "refine/turn/1/critic_tokens": 6,
        "refine/turn/1/critic_prompt_tokens": 30,
        "refine/turn/1/refined": 3,
        "refine/turn/1/rescued": 1,
        "refine/turn/1/tokens": 5,
        "refine/turn/1/prompt_tokens": 29,
        "refine/turn/2/asked": 2,
        "refine/turn/2/critic_tokens": 2,
        "refine/turn/2/critic_prompt_tokens": 10,
        "refine/turn/2/refined": 1,
        "refine/turn/2/tokens": 2,
        "refine/turn/2/prompt_tokens": 11,
        "refine/turn/3/asked": 1,
        "refine/turn/3/critic_tokens": 2,
        "refine/turn/3/critic_prompt_tokens": 10,
        "refine/turn/3/refined": 1,
        "refine/turn/3/rescued": 1,
        "refine/turn/3/tokens": 2,
        "refine/turn/3/prompt_tokens": 11,
    }
    assert (counts["tokens/refinement"], counts["tokens/refinement_prompt"]) == (9, 51)
    assert (counts["tokens/critic_completion"], counts["tokens/critic_prompt"]) == (10, 50)
    assert (counts["refine/candidates"], counts["refine/right"]) == (5, 2)
    # three rollouts and three refinements failed before the last turn: five critiques, one none
    failed = counts["critique/failed_rollouts"], counts["critique/failed_refinements"]
    assert failed == (3, 3)
    assert (counts["critique/ok"], counts["critique/skipped"]) == (5, 1)
    assert counts["critique/not_asked"] == 0


def test_a_chain_that_is_still_wrong_ends_with_the_last_turn() -> None:
    sampler = ListSampler("a", "b", "c+", "d+", *"efghijk")
    rollout, _ = rollout_of(sampler, Words("no"), refine_turns=3)
    batch = rollout.run(PROMPTS, ROWS)
    # turn 1: e and f, and g for the group without a failure; turn 2: h and i; turn 3: j and k
    assert [refined.text for _, _, refined in batch.refinements] == [*"efhijk"]
    assert batch.order[2] in (9, 10)
    assert batch.counts["refine/turn/3/refined"] == 2
    assert batch.counts["critique/failed_refinements"] == 4


def test_where_only_lost_groups_are_criticised_the_chains_of_a_group_end_together() -> None:
    sampler = ListSampler("a", "b", "c", "d", "e+", "f", "g", "h", "i", "j+")
    rollout, _ = rollout_of(
        sampler, Words("no"), refine_turns=2, critique_when="group_failed", refine_select="random"
    )
    batch = rollout.run(PROMPTS, ROWS)
    assert sampler.asked[2] == ["r\ng\n> no", "r\nh\n> no"]
    assert sorted(batch.turn_critiques) == [6, 7]
    assert batch.counts["critique/failed_refinements"] == 3
    assert batch.counts["critique/not_asked"] == 1


def test_refinements_that_were_cut_or_leave_no_room_are_skipped_with_the_reason() -> None:
    long = "x" * 95
    sampler = ListSampler("a", "b", "c+", "d+", "e~", long, "g")
    rollout, _ = rollout_of(sampler, Words("no"), refine_turns=2, critique_truncated=False)
    batch = rollout.run(PROMPTS, ROWS)
    reasons = {number: words.reason for number, words in batch.turn_critiques.items()}
    assert reasons == {4: "truncated", 5: "prompt_too_long"}
    counts = batch.counts + count_generation(batch, group_size=3, slots=1)
    assert counts["critique/skipped/truncated"] == counts["critique/skipped/prompt_too_long"] == 1
    assert counts["critique/failed_refinements"] == 2
    # the long one was asked about before its prompt was measured
    assert counts["refine/turn/2/asked"] == 1
    assert counts["refine/turn/2/refined"] == 0


def test_a_critic_that_may_not_fail_ends_the_run_in_any_turn() -> None:
    class Failing(Words):
        def critique(self, attempts):
            if attempts[0].text == "e":
                raise CriticFailed("out of money")
            return super().critique(attempts)

    rollout, _ = rollout_of(ListSampler(*"abcdefgh"), Failing(), refine_turns=2)
    with pytest.raises(CriticFailed, match="out of money"):
        rollout.run(PROMPTS, ROWS)


def test_copies_between_turns_are_no_rows_of_the_batch() -> None:
    def phase(texts: str, copies: int, turn: int) -> SecondPhase:
        rows = [[ord(text)] for text in texts]
        candidates = [SlotCandidate(0, i, turn=turn) for i in range(len(texts))]
        judged = Judged(torch.zeros(len(texts), 1), [0.0] * len(texts), [])
        places = list(range(len(texts)))
        return SecondPhase(
            candidates, Sampled(rows, rows, None, [*texts]), judged, [], [], places, copies
        )

    # turn 1: 2 rows and 3 copies; turn 2: 4 copies; turn 3: 1 row, in row 9; turn 4: 2 copies
    first = phase("ab", 3, 1).followed_by(phase("", 4, 2))
    assert (first.rows, first.copies) == ([0, 1], 7)
    second = first.followed_by(phase("c", 0, 3))
    assert (second.rows, second.copies, second.judged_rows) == ([0, 1, 9], 0, 10)
    third = second.followed_by(phase("", 2, 4))
    assert (third.rows, third.copies) == ([0, 1, 9], 2)
    assert third.sampled.completions == [*"abc"]
    assert third.places_of(0) == [2, 1]


# ---- tables --------------------------------------------------------------------------------------


def test_the_tables_show_the_chain() -> None:
    batch, _, _ = three_turns()
    table = rollout_rows(1, batch, [0.0] * 6)
    # row 7 refines row 4, which refines rollout 0
    places = [(row["role"], row["attempt"], row["turn"]) for row in table[4:]]
    chains = [(0, 1), (1, 1), (2, 1), (4, 2), (7, 3)]
    assert places == [("candidate", *chain) for chain in chains]
    assert [row["critique"] for row in table] == [
        *("one", "two", "three", ""),
        "four",
        "",
        "",
        "five",
        "",
    ]
    assert [row["critique_reason"] for row in table[4:6]] == ["", "nothing to say"]
    assert {row["turn"] for row in table[:4]} == {0}
    columns = completion_columns(batch)
    assert columns["role"][2] == "refinement, turn 3 of rollout 1"
    assert columns["role"][5] == "refinement, turn 1 of rollout 1"
    assert columns["critique"][2] == "five"
    assert columns["refinement"] == [
        "[turn 1] ee\n[critique] four\n[turn 2] hh\n[critique] five\n[turn 3] k+",
        "[turn 1] f\n[critique] (skipped: nothing to say)",
        "",
        "g+",
        "",
        "",
    ]


# ---- in a trainer --------------------------------------------------------------------------------


def test_one_turn_is_what_it_was(tiny_policy, tmp_path) -> None:
    def trained(**settings) -> CritiqueGRPOTrainer:
        trainer = trainer_of(
            CritiqueGRPOTrainer,
            CritiqueGRPOConfig,
            tiny_policy,
            tmp_path,
            even,
            settings={**LAB, **settings},
            critic=Words(),
        )
        trainer.train()
        return trainer

    unset, one = trained(), trained(refine_turns=1)
    weights = zip(unset.model.parameters(), one.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)
    assert unset.tokens == one.tokens
    assert not any("turn" in name for row in one.state.log_history for name in row)


def test_the_turns_of_a_run_add_up_to_its_tokens_and_to_its_budget(tiny_policy, tmp_path) -> None:
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        even,
        settings={**LAB, "refine_turns": 3},
        critic=ChatCritic(PolicyChat(), "lab/critique", "self"),
    )
    trainer.train()
    totals: Counter[str] = Counter()
    for row in trainer.state.log_history:
        for name, value in row.items():
            if name.startswith("refine/turn/"):
                totals[name.split("/")[-1]] += value
                totals[name] += value
    tokens = trainer.tokens
    assert totals["tokens"] == tokens["tokens/refinement"]
    assert totals["prompt_tokens"] == tokens["tokens/refinement_prompt"]
    assert totals["critic_tokens"] == tokens["tokens/self_critique"]
    assert totals["critic_prompt_tokens"] == tokens["tokens/self_critique_prompt"]
    assert totals["refine/turn/3/tokens"] > 0
    owners = ("rollout", "refinement", "self_critique")
    assert trainer.generated_tokens == sum(tokens[f"tokens/{owner}"] for owner in owners)


@pytest.mark.processes
def test_arms_of_one_turn_and_of_three_stop_at_the_same_tokens(tiny_policy, tmp_path) -> None:
    """The budget counts every turn, and the tables and the page of the longer arm have the chains.
    An untrained policy rescues nothing, so that every chain takes all turns.
    """
    critic = {"critic": {"kind": "oracle"}}
    path = write_pipeline(
        tmp_path,
        tiny_policy,
        budget={"total_tokens": 6000},
        arms={"one": critic, "three": {**critic, "method": {"refine_turns": 3}}},
    )
    done = cli("run", path, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr[-2000:]
    folder = PipelineFolder(tmp_path / "runs" / "small")
    steps = {}
    for arm in ("one", "three"):
        run = folder.run(arm, 0)
        rows = read_jsonl(run.metrics)
        assert rows[-2]["tokens/total"] < 6000 <= rows[-1]["tokens/total"]
        steps[arm] = len(rows)
        turns = [name for name in rows[-1] if name.startswith("refine/turn/")]
        assert bool(turns) == (arm == "three")
        table = pq.read_table(min(run.rollouts.glob("*.parquet"))).to_pylist()
        assert {row["turn"] for row in table} == ({0, 1} if arm == "one" else {0, 1, 2, 3})
        for row in table:
            if row["turn"] > 1:
                assert table[row["attempt"]]["turn"] == row["turn"] - 1
                assert table[row["attempt"]]["question"] == row["question"]
                assert table[row["attempt"]]["critique_status"] == "ok"
    assert steps["three"] < steps["one"]
    assert "Refinement, turn 3" in folder.report.read_text()


def test_a_row_of_turn_two_trains_under_the_question_and_is_taught_under_its_prompt(
    tiny_policy, tmp_path
) -> None:
    # Group 1: the third chain is right in turn 2. Group 2: no rollout fails.
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 3 + [1.0] * 3, [0.0] * 4, [0.0, 0.0, 1.0]),
        Words(),
        refine_turns=2,
        distill_weight=1.0,
        distill_target="refinements",
        scale_rewards="none",
    )
    output = generated(trainer)
    batch = trainer.generation
    refined = batch.refinements[-1].refinement
    assert (batch.refined, refined.turn, refined.chosen) == ([3], 2, True)
    assert completion_text(trainer, output, 3) == refined.text
    assert torch.equal(output["prompt_ids"][3], output["prompt_ids"][2])
    # the mean of [0, 0, 0, 1] is 1/4: the scalar term trains the rollouts, the refine term the row
    assert output["advantages"][:4].tolist() == [-0.25, -0.25, -0.25, 0.0]
    assert output["refine_credit"][:4].tolist() == [0.0, 0.0, 0.0, 0.75]
    first = batch.refinements[2].refinement
    asked = f"{first.attempt.question}\n{first.text}\n> A sign lost"
    assert refined.attempt.text == first.text
    assert context_tokens(output, 3) == prompt_tokens(trainer, asked)
    trainer._compute_loss(trainer.model, output).backward()
    assert trainer._metrics["train"]["loss/refine"][0] != 0


def test_an_unscored_refinement_is_not_refined_again(tiny_policy, tmp_path) -> None:
    reward = Turns([0.0] * 6, [None, 0.0, 1.0] * 2, [0.0, 0.0])
    trainer = critique_trainer(tiny_policy, tmp_path, reward, Words(), refine_turns=2)
    generated(trainer)
    metrics = trainer._metrics["train"]
    assert metrics["refine/turn/2/asked"] == metrics["refine/turn/2/refined"] == [2]
    assert trainer.generation.refined == [3, 7]


def test_traces_take_the_rows_of_refinements_that_a_later_turn_rescued(
    tiny_policy, tmp_path
) -> None:
    settings = {"refine_column": "solution", "refine_traces": "rescued", "refine_turns": 2}
    # three refinements and the trace of each group, then the six refinements of turn 2
    reward = Turns([0.0] * 6, [0.0, 0.0, 0.0, 1.0] * 2, [0.0, 1.0, 0.0] + [0.0] * 3)
    trainer = critique_trainer(
        tiny_policy, tmp_path, reward, Words(), max_completion_length=20, **settings
    )
    output = generated(trainer)
    assert completion_text(trainer, output, 3) == SOLUTIONS[0]
    metrics = trainer._metrics["train"]
    assert metrics["refine/swapped"] == [1]
    assert metrics["refine/turn/2/rescued"] == [1]


def test_a_critic_that_finds_the_words_at_the_second_attempt_rescues_in_turn_two(tmp_path) -> None:
    """The lab's policy and oracle: what an attempt is told first helps nobody."""
    task = load_task(TaskConfig("lab/chain", size=8, families={"plateau": 1}), seed=0)

    class Late:
        name = "late"

        def __init__(self) -> None:
            self.calls = 0

        def critique(self, attempts):
            self.calls += 1
            words = [task.oracle(attempt) if self.calls > 1 else "hm" for attempt in attempts]
            return [Critique(text, self.name) for text in words]

    trainer = critique_trainer(
        resolve_model("lab"),
        tmp_path,
        VerifierReward(task.verifier),
        Late(),
        data=Dataset.from_list([dict(row) for row in task.train]),
        max_completion_length=48,
        refine_turns=2,
    )
    generated(trainer, task.train[:2])
    metrics = trainer._metrics["train"]
    rescued = [metrics[f"refine/turn/{turn}/rescued"] for turn in (1, 2)]
    refined = [metrics[f"refine/turn/{turn}/refined"] for turn in (1, 2)]
    assert (rescued[0], refined[0]) == ([], [6])
    assert rescued[1][0] >= 4, "the oracle's words on a refinement help as those on a rollout do"
    assert trainer.generation.refined == [3, 7]


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "has_critic", "words"),
    [
        ({}, False, "refine_turns: got 2 without a critic"),
        ({"refine_slots": 0}, True, r"got 2 without reserved rows \(refine_slots is 0\)"),
        ({"refine_column": "solution"}, True, "got 2 without refinements: refine_column fills"),
    ],
)
def test_further_turns_without_refinements_are_refused(settings, has_critic, words) -> None:
    arguments = CritiqueGRPOConfig("x", use_cpu=True, bf16=False, refine_turns=2, **settings)
    with pytest.raises(ValueError, match=words):
        arguments.check_trains(has_critic)


@pytest.mark.parametrize("turns", [0, 1.5, True, None])
def test_turns_are_a_whole_number_from_one(turns) -> None:
    with pytest.raises(ValueError, match=r"refine_turns: got .*, expected a whole number"):
        CritiqueGRPOConfig("x", use_cpu=True, bf16=False, refine_turns=turns)


def test_the_model_card_names_the_turns() -> None:
    arguments = CritiqueGRPOConfig("x", use_cpu=True, bf16=False, refine_turns=3)
    assert "1 of 8 rows, up to 3 turns)" in describe_method(arguments, two_phases=True)
