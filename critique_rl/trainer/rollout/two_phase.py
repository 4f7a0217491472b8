"""Rollouts in two phases, as TRL's `rollout_func`: sample and judge N - k of each group's rows,
have the failed ones critiqued, fill the k reserved rows.

Phase 2 samples m refinements a group (or takes expert traces); k of them stand under the plain
prompt, plain samples where nothing failed or nothing came back. Every rank scores the same number
of rows and makes the same number of `generate` calls, whatever failed on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOTrainer

from critique_rl.critic.chat import PolicyChat
from critique_rl.critic.contract import CriticFailed, Reply, invalid_field
from critique_rl.prompts import special_tokens
from critique_rl.tasks.rewards import VerifierReward, text_of
from critique_rl.trainer import trl_seams
from critique_rl.trainer.rollout.refine import (
    choose,
    due,
    mentions_critique,
    question_of,
    refine_prompt,
)
from critique_rl.types import Attempt, Critique, Message, Refinement, Verdict


@dataclass(frozen=True)
class Second:
    """One sequence of phase 2: the refinement of an attempt (by index), an expert's trace, or else
    a plain sample for a free slot of the group.
    """

    group: int
    attempt: int | None = None
    trace: list[int] | None = None
    """Token ids, the end included."""


class TwoPhaseRollout:
    """Called by the trainer with the prompts of one generation batch; leaves what it did in the
    trainer's `Generation`.
    """

    def __init__(self, trainer: GRPOTrainer):
        self.trainer = trainer

    def __call__(self, prompts: list[Any], _: Any) -> dict[str, Any]:
        trainer = self.trainer
        if not trainer.model.training:
            sampled = trl_seams.sample(trainer, prompts, trainer.num_generations_eval)
            return {
                "prompt_ids": sampled.prompt_ids,
                "completion_ids": sampled.completion_ids,
                "logprobs": sampled.logprobs,
            }
        batch, size, rollouts = trainer.generation, trainer.num_generations, self.rollouts
        batch.group_rollouts = rollouts
        first_rows = [i for i in range(len(prompts)) if i % size < rollouts]
        first = trl_seams.sample(trainer, [prompts[i] for i in first_rows], rollouts)
        rewards, verdicts = self._score([self.rows[i] for i in first_rows], first)
        batch.attempts = self._attempts(first_rows, first, verdicts)
        batch.critiques = (
            self._critiques(batch.attempts, verdicts) if trainer.critic is not None else {}
        )
        entries = self._entries(len(prompts) // size)
        second = self._sample_second(prompts, entries)
        more, more_verdicts = self._score_padded(len(prompts) // size, entries, second, first)
        self._fill(len(prompts) // size, entries, second, more_verdicts)
        scored = torch.cat([rewards, more])
        batch.values, batch.rewards = trainer.weighted(scored).tolist(), scored[batch.order]
        batch.verdicts = [(verdicts + more_verdicts)[i] for i in batch.order]
        trl_seams.reorder_extra_columns(trainer, batch.order, len(scored))
        self._count_tokens(first, second, entries)
        return _assemble(first, second, batch.order)

    @property
    def rollouts(self) -> int:
        """Rows of a group that phase 1 samples."""
        return self.trainer.num_generations - self.trainer.args.refine_slots

    @property
    def rows(self) -> list[dict]:
        return self.trainer.rows

    # ---- judging ---------------------------------------------------------------------------------

    def _score(
        self, rows: list[dict], sampled: trl_seams.Sampled
    ) -> tuple[torch.Tensor, list[Verdict]]:
        """Rewards (rows, functions) of this rank's completions, group-wise functions NaN, and their
        verdicts.
        """
        functions = self.trainer.reward_funcs
        per_row = [
            i for i, function in enumerate(functions) if not getattr(function, "group_wise", False)
        ]
        with trl_seams.reward_functions(self.trainer, per_row):
            scored = trl_seams.score(
                self.trainer,
                rows,
                [row["prompt"] for row in rows],
                sampled.completions,
                sampled.completion_ids,
            )
        rewards = torch.full((len(rows), len(functions)), torch.nan, device=scored.device)
        rewards[:, per_row] = scored
        return rewards, verdicts_of(self.trainer, rewards)

    def _score_padded(
        self,
        groups: int,
        entries: list[Second],
        second: trl_seams.Sampled,
        first: trl_seams.Sampled,
    ) -> tuple[torch.Tensor, list[Verdict]]:
        """Judge phase 2 as answers to the plain questions. Padded with copies to the most rows a
        rank can have: scoring gathers over ranks.
        """
        args, size = self.trainer.args, self.trainer.num_generations
        if args.refine_slots == 0:
            return torch.empty(
                0, len(self.trainer.reward_funcs), device=self.trainer.accelerator.device
            ), []
        most = max(args.refine_candidates or self.rollouts, args.refine_slots) * groups
        pad = (most - len(entries)) if self.trainer.accelerator.num_processes > 1 else 0
        rows = [self.rows[entry.group * size] for entry in entries] + [self.rows[0]] * pad
        padded = trl_seams.Sampled(
            [],
            second.completion_ids + [first.completion_ids[0]] * pad,
            None,
            second.completions + [first.completions[0]] * pad,
        )
        rewards, verdicts = self._score(rows, padded)
        return rewards[: len(entries)], verdicts[: len(entries)]

    def _attempts(
        self, rows: list[int], sampled: trl_seams.Sampled, verdicts: list[Verdict]
    ) -> list[Attempt]:
        triples = zip(rows, sampled.completions, verdicts, strict=True)
        return [
            Attempt(question_of(self.rows[i]["prompt"]), text_of(completion), verdict, self.rows[i])
            for i, completion, verdict in triples
        ]

    # ---- critiques -------------------------------------------------------------------------------

    def _critiques(self, attempts: list[Attempt], verdicts: list[Verdict]) -> dict[int, Critique]:
        trainer, started = self.trainer, time.perf_counter()
        asked = due(verdicts, self.rollouts, trainer.args.critique_when, self._most_critiques())
        # The policy's own sampler is a collective, so that critic is called on every rank.
        called = asked or isinstance(getattr(trainer.critic, "chat", None), PolicyChat)
        answers = self._together(
            lambda: trainer.critic.critique([attempts[i] for i in asked]) if called else []
        )
        if not isinstance(answers, Sequence) or isinstance(answers, str):
            raise TypeError(
                f"critic {trainer.critic.name}: got a {type(answers).__name__}, expected a list of critiques (and no coroutine)"
            )
        if len(answers) != len(asked):
            raise ValueError(
                f"critic {trainer.critic.name}: got {len(answers)} critiques for {len(asked)} attempts, expected one each, in order"
            )
        for one in answers:
            if not isinstance(one, Critique) or invalid_field(one):
                raise TypeError(
                    f"critic {trainer.critic.name}: got {one!r}, expected a Critique"
                    + (f": {invalid_field(one)}" if isinstance(one, Critique) else "")
                )
        critiques = dict(zip(asked, answers, strict=True))
        counts = trainer.generation.counts
        counts.update(
            {
                "critique/seconds": time.perf_counter() - started,
                "critique/failed_rollouts": sum(v.failed for v in verdicts),
            }
        )
        counts["critique/not_asked"] = counts["critique/failed_rollouts"] - len(asked)
        return self._drop_long(attempts, critiques) if trainer.args.refine_slots else critiques

    @staticmethod
    def _together(critique: Callable[[], list[Critique]]) -> list[Critique]:
        """A critic that may not fail ends the run on every rank: a rank that went on alone would
        wait for the others for ever.
        """
        answers, failures = [], []
        try:
            answers = critique()
        except CriticFailed as failure:
            failures = [str(failure)]
        failures = gather_object(failures)
        if failures:
            raise CriticFailed(failures[0])
        return answers

    def answer(self, conversations: Sequence[list[Message]]) -> list[Reply]:
        """The policy's replies, for a critic that is the policy itself. Prompts that leave no room
        for an answer are failed replies.
        """
        trainer, counts = self.trainer, self.trainer.generation.counts
        lengths = map(len, trl_seams.prompt_ids(trainer, list(conversations)))
        fits = [length <= prompt_limit(trainer) for length in lengths]
        asked = [conversation for conversation, fit in zip(conversations, fits, strict=True) if fit]
        sampled = trl_seams.sample_uneven(trainer, asked, self.rows[0]["prompt"])
        counts["tokens/self_critique"] += sum(map(len, sampled.completion_ids))
        counts["tokens/self_critique_prompt"] += sum(map(len, sampled.prompt_ids))
        texts = map(text_of, sampled.completions)
        return [
            Reply(next(texts)) if fit else Reply("", "failed", "prompt_too_long") for fit in fits
        ]

    def _most_critiques(self) -> int:
        """Critiques a group at most: one a candidate, or of all failed rollouts where the teacher
        reads them.
        """
        args = self.trainer.args
        taught = (
            args.distill_weight
            and args.distill_target != "refinements"
            and "critique" in args.distill_context
        )
        return (
            self.rollouts
            if taught or not args.refine_slots
            else args.refine_candidates or self.rollouts
        )

    def _drop_long(
        self, attempts: list[Attempt], critiques: dict[int, Critique]
    ) -> dict[int, Critique]:
        """Refine prompts that leave no room for an answer are skipped, with a reason."""
        usable = [i for i, critique in critiques.items() if critique.status == "ok"]
        tokens = trl_seams.prompt_ids(
            self.trainer, [self._refine_prompt(attempts[i], critiques[i]) for i in usable]
        )
        for i, ids in zip(usable, tokens, strict=True):
            if len(ids) > prompt_limit(self.trainer):
                critiques[i] = replace(critiques[i], status="skipped", reason="prompt_too_long")
        return critiques

    def _refine_prompt(self, attempt: Attempt, critique: Critique) -> Any:
        return refine_prompt(
            attempt.row["prompt"],
            attempt,
            critique,
            self.trainer.args.refine_template,
            special_tokens(self.trainer.processing_class),
        )

    # ---- phase 2 ---------------------------------------------------------------------------------

    def _entries(self, groups: int) -> list[Second]:
        """What phase 2 holds, group by group: refinements (m at most) or the expert's trace, then
        plain samples for slots they cannot fill.
        """
        args, entries = self.trainer.args, []
        usable = [
            i
            for i, critique in self.trainer.generation.critiques.items()
            if critique.status == "ok"
        ]
        for group in range(groups if args.refine_slots else 0):
            if args.refine_column is not None:
                own = self._traces(group)
            else:
                own = [Second(group, attempt=i) for i in usable if i // self.rollouts == group][
                    : args.refine_candidates or self.rollouts
                ]
            entries += own + [Second(group)] * max(0, args.refine_slots - len(own))
        return entries

    def _traces(self, group: int) -> list[Second]:
        """The expert's trace of a group's row; a missing one, or one longer than a completion may
        be, is counted and leaves the slot to a plain sample.
        """
        text = self.rows[group * self.trainer.num_generations].get(self.trainer.args.refine_column)
        ids = trl_seams.completion_ids(self.trainer, str(text)) if text else []
        if 0 < len(ids) <= self.trainer.max_completion_length:
            return [Second(group, trace=ids)]
        self.trainer.generation.counts[
            "refine/traces_too_long" if ids else "refine/traces_missing"
        ] += 1
        return []

    def _sample_second(self, prompts: list[Any], entries: list[Second]) -> trl_seams.Sampled:
        """Sample what is to be sampled in one call, and put expert traces in their places."""
        size, batch = self.trainer.num_generations, self.trainer.generation
        drawn = [entry for entry in entries if entry.trace is None]
        asked = [
            prompts[e.group * size]
            if e.attempt is None
            else self._refine_prompt(batch.attempts[e.attempt], batch.critiques[e.attempt])
            for e in drawn
        ]
        sampled = trl_seams.sample_uneven(self.trainer, asked, prompts[0])
        for i, entry in enumerate(entries):
            if entry.trace is not None:
                trl_seams.insert(self.trainer, sampled, i, prompts[entry.group * size], entry.trace)
        return sampled

    def _fill(
        self, groups: int, entries: list[Second], second: trl_seams.Sampled, verdicts: list[Verdict]
    ) -> None:
        """Decide which of phase 2 fills each reserved row, and record all of it in the
        `Generation`.
        """
        batch, args, size, rollouts = (
            self.trainer.generation,
            self.trainer.args,
            self.trainer.num_generations,
            self.rollouts,
        )
        first, texts = (
            len(batch.attempts),
            [text_of(completion) for completion in second.completions],
        )
        spoken = [
            entry.attempt is not None and mentions_critique(text)
            for entry, text in zip(entries, texts, strict=True)
        ]
        batch.counts["refine/mentions"] = sum(spoken)
        chosen: set[int] = set()
        for group in range(groups):
            mine = [j for j, entry in enumerate(entries) if entry.group == group]
            plain = [j for j in mine if entries[j].attempt is None and entries[j].trace is None]
            candidates = [
                j
                for j in mine
                if j not in plain and not (spoken[j] and args.refine_mentions == "drop")
            ]
            picked = [
                candidates[c]
                for c in choose(
                    [verdicts[j] for j in candidates], args.refine_slots, _draw, args.refine_select
                )
            ]
            # Unscored and dropped candidates are the last resort: as plain rows they carry no
            # refine credit.
            spare = [j for j in mine if j not in picked and j not in plain]
            filled = (picked + plain + spare)[: args.refine_slots]
            chosen.update(picked)
            for slot, j in enumerate(filled):
                row = group * size + rollouts + slot
                batch.refined += [row] if j in picked else []
                batch.off_policy += [row] if j in spare else []
            batch.order += [group * rollouts + r for r in range(rollouts)] + [
                first + j for j in filled
            ]
        for j, (entry, text) in enumerate(zip(entries, texts, strict=True)):
            self._record(entry, first + j, text, verdicts[j], j in chosen)

    def _record(
        self, entry: Second, number: int, text: str, verdict: Verdict, chosen: bool
    ) -> None:
        batch, row = self.trainer.generation, self.rows[entry.group * self.trainer.num_generations]
        if entry.attempt is not None:
            i = entry.attempt
            batch.refinements.append(
                (
                    i,
                    number,
                    Refinement(batch.attempts[i], batch.critiques[i], text, verdict, chosen),
                )
            )
        else:
            role = "rollout" if entry.trace is None else "expert"
            batch.plain.append(
                (entry.group, number, role, Attempt(question_of(row["prompt"]), text, verdict, row))
            )

    def _count_tokens(
        self, first: trl_seams.Sampled, second: trl_seams.Sampled, entries: list[Second]
    ) -> None:
        counts = self.trainer.generation.counts
        for j, entry in enumerate(entries):
            owner = (
                "refinement"
                if entry.attempt is not None
                else "rollout"
                if entry.trace is None
                else "expert"
            )
            counts[f"tokens/{owner}"] += len(second.completion_ids[j])
            counts[f"tokens/{owner}_prompt"] += len(second.prompt_ids[j])
        counts["tokens/rollout"] += sum(map(len, first.completion_ids))
        counts["tokens/rollout_prompt"] += sum(map(len, first.prompt_ids))


def verdicts_of(trainer: GRPOTrainer, rewards: torch.Tensor) -> list[Verdict]:
    """The verifier's own verdicts where a reward function has one, else from the weighted reward;
    all NaN is unscored, never failed.
    """
    verified = [
        function.verdicts
        for function in trainer.reward_funcs
        if isinstance(function, VerifierReward)
    ]
    if verified:
        return list(verified[0])
    values, threshold = trainer.weighted(rewards).tolist(), trainer.args.success_threshold
    return [
        Verdict("unscored" if math.isnan(value) else "right" if value >= threshold else "wrong")
        for value in values
    ]


def record_plain(
    trainer: GRPOTrainer,
    completions: list[Any],
    completion_ids: list[list[int]],
    gathered: torch.Tensor,
) -> None:
    """Without two phases: the same bookkeeping from what TRL sampled and scored."""
    batch, start = trainer.generation, trainer.accelerator.process_index * len(completions)
    own = gathered[start : start + len(completions)]
    batch.verdicts, batch.values, batch.group_rollouts = (
        verdicts_of(trainer, own),
        trainer.weighted(own).tolist(),
        trainer.num_generations,
    )
    rows = zip(trainer.rows, completions, batch.verdicts, strict=True)
    batch.attempts = [
        Attempt(question_of(row["prompt"]), text_of(completion), verdict, row)
        for row, completion, verdict in rows
    ]
    batch.order = list(range(len(completions)))
    batch.counts["tokens/rollout"] = sum(map(len, completion_ids))


def refuse_unsupported(dataset: Any, kwargs: dict[str, Any], critic: Any) -> None:
    """ValueError for what two phases cannot do, TypeError for what is no critic; `kwargs` are the
    trainer's.
    """
    if critic is not None and (
        not callable(getattr(critic, "critique", None))
        or not isinstance(getattr(critic, "name", None), str)
    ):
        raise TypeError(
            f"critic: got {critic!r}, expected an object with `name` and `critique(attempts)`; build_critic({{'kind': ...}}, task) makes one"
        )
    for name in ("tools", "environment_factory", "rollout_func"):
        if kwargs.get(name) is not None:
            raise ValueError(
                f"{name} cannot be used with a critic: rollouts are sampled in two phases here. Leave out {name}, or set critic=None."
            )
    columns = _columns(dataset)
    if columns & {"image", "images"}:
        raise ValueError(
            "a dataset with images cannot be used with a critic (it reads text only). Drop the column, or set critic=None."
        )
    if "prompt" not in columns:
        raise ValueError(
            f"train_dataset: got the columns {', '.join(sorted(columns))}, expected one called 'prompt'; rename the column that holds it"
        )


def check_column(dataset: Any, column: str | None, option: str) -> None:
    """ValueError where an option names a column that the dataset lacks."""
    if (
        column is not None
        and getattr(dataset, "column_names", None)
        and column not in _columns(dataset)
    ):
        raise ValueError(
            f"{option}: got {column!r}, but train_dataset has the columns {', '.join(sorted(_columns(dataset)))}; name one that holds a solution"
        )


def _columns(dataset: Any) -> set[str]:
    return set(getattr(dataset, "column_names", None) or ("prompt",))


def prompt_limit(trainer: GRPOTrainer) -> int:
    """Tokens a refine or teacher prompt may have."""
    if trainer.args.max_refine_prompt_length is not None:
        return trainer.args.max_refine_prompt_length
    context = (
        getattr(
            trainer.accelerator.unwrap_model(trainer.model).config, "max_position_embeddings", None
        )
        or 1 << 30
    )
    return context - trainer.max_completion_length


def _draw(n: int) -> int:
    # torch's generator, because its state is in every checkpoint.
    return int(torch.randint(n, (1,)))


def _assemble(
    first: trl_seams.Sampled, second: trl_seams.Sampled, order: Sequence[int]
) -> dict[str, Any]:
    """The batch in TRL's order. A refinement stands under the plain prompt of its group, which is
    that of the rollout before it.
    """
    count, prompt_ids, logprobs = len(first.completion_ids), [], []
    completions = first.completion_ids + second.completion_ids
    sampled = None if first.logprobs is None else [*first.logprobs, *(second.logprobs or [])]
    for i in order:
        prompt_ids.append(first.prompt_ids[i] if i < count else prompt_ids[-1])
        if sampled is not None:
            # A refinement was sampled under another prompt: None makes TRL's vLLM correction
            # exactly 1 on its tokens.
            logprobs.append(
                sampled[i]
                if i < count or second.prompt_ids[i - count] == prompt_ids[-1]
                else [None] * len(completions[i])
            )
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": [completions[i] for i in order],
        "logprobs": logprobs if sampled is not None else None,
    }
