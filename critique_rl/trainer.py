"""CritiqueGRPOTrainer: TRL's GRPOTrainer whose failed rollouts are critiqued and refined. It wraps TRL's methods and copies none.

Of each group of N rows k are reserved. Phase 1 samples and judges N - k rollouts; the critic writes on the failed ones; phase 2 samples m refinements a
group, judged as answers to the question alone; k of them fill the reserved rows under the plain prompt (plain samples where nothing failed or nothing came
back). Padding, gathers, group advantages, logging and splitting stay TRL's. With `critic=None` and default weights this *is* GRPOTrainer, bit for bit.

Every rank scores the same number of rows and makes the same number of `generate` calls, whatever failed on it. Left out for now: distillation, the
importance ratio, exact resume.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import GRPOConfig, GRPOTrainer

from critique_rl import trl_seams
from critique_rl.config import suggest
from critique_rl.critic import Critic
from critique_rl.generation import Generation, counts_of, metrics_of
from critique_rl.objective import refine_loss, weighted_advantages
from critique_rl.refine import choose, due, question_of, refine_prompt
from critique_rl.rewards import VerifierReward, text_of
from critique_rl.types import Attempt, Critique, Refinement, Verdict

CHOICES = {
    "refine_ratio": ("shaped", "nll"),
    "refine_normalizer": ("slots", "tokens"),
    "critique_when": ("rollout_failed", "group_failed"),
}


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class CritiqueGRPOConfig(GRPOConfig):
    """GRPOConfig with the options of critique-augmented training. Weights default to stock GRPO."""

    refine_slots: int = _option(1, "Reserved rows k of each group of num_generations that refinements fill. The paper's 7 + 1 is num_generations 8, k 1.")
    refine_candidates: int | None = _option(None, "Refinements m sampled a group at most; None: all N - k. m = k is the cheap mode.")
    refine_weight: float = _option(1.0, "Weight of the refine term.")
    refine_ratio: str = _option("shaped", "Per-token weight of refinements: shaped p/(p+gamma) (Critique-GRPO), or nll of right ones (RAFT).")
    refine_gamma: float = _option(0.1, "gamma of the shaped ratio.")
    refine_normalizer: str = _option("slots", "The refine term is divided by the tokens of all reserved slots, filled or not, or by its own tokens.")
    refine_template: str = _option("refine", "Template of prompts/ that a refinement is sampled from.")
    max_refine_prompt_length: int | None = _option(None, "Refine prompts with more tokens are skipped and counted. None: what the context leaves.")
    critique_when: str = _option("rollout_failed", "Critique every failed rollout, or only those of groups that failed as a whole (group_failed).")
    success_threshold: float = _option(1.0, "Without a verifier: a rollout failed if its weighted reward is under this.")
    positive_weight: float = _option(1.0, "Factor on positive advantages of rollouts.")
    negative_weight: float = _option(1.0, "Factor on negative advantages of rollouts.")
    grad_norm_steps: int = _option(10, "Log the gradient norm of each term every so many steps (one more backward pass); 0: never.")

    def __post_init__(self):
        super().__post_init__()
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: got {getattr(self, name)!r}; {suggest(str(getattr(self, name)), choices)}")
        if not 0 < self.refine_slots < self.num_generations:
            raise ValueError(f"refine_slots: got {self.refine_slots}, expected 1 to {self.num_generations - 1} (num_generations - 1)")
        if self.refine_candidates is not None and not self.refine_slots <= self.refine_candidates <= self.num_generations - self.refine_slots:
            most = self.num_generations - self.refine_slots
            raise ValueError(f"refine_candidates: got {self.refine_candidates}, expected {self.refine_slots} (refine_slots) to {most} (rollouts of a group)")


class CritiqueGRPOTrainer(GRPOTrainer):
    """GRPOTrainer that puts a critic's words to work. Takes what GRPOTrainer takes.

    With a `critic`, prompts are text and rewards are per row (`rewards.group_wise` marks those that compare a group); tools, environments, images and a
    `rollout_func` are refused. `tokens` counts every token by owner; `on_generation`, if set, is called with each `Generation` and its advantages.
    """

    _name = "Critique-GRPO"
    _tag_names = ("trl", "critique-grpo")

    def __init__(self, model, reward_funcs=None, args: CritiqueGRPOConfig | None = None, train_dataset=None, *rest, critic: Critic | None = None, **kwargs):
        args = args or CritiqueGRPOConfig("critique-grpo")
        if not isinstance(args, CritiqueGRPOConfig):
            raise TypeError(f"args: got {type(args).__name__}, expected CritiqueGRPOConfig, which takes every field of GRPOConfig")
        if critic is not None:
            _refuse_unsupported(train_dataset, kwargs)
            kwargs["rollout_func"] = self._rollout
        super().__init__(model, reward_funcs, args, train_dataset, *rest, **kwargs)
        self.critic, self.tokens, self.on_generation = critic, Counter(), None
        self._generation, self._rows, self._live_logps = Generation(), [], None
        if critic is not None:
            self._check_batch()

    def _check_batch(self) -> None:
        per_rank = self.args.per_device_train_batch_size * self.args.steps_per_generation
        if per_rank % self.num_generations:
            raise ValueError(
                f"with a critic whole groups must lie on one rank: got per_device_train_batch_size * steps_per_generation = {per_rank}, "
                f"expected a multiple of num_generations = {self.num_generations}"
            )
        if self.use_vllm and self.accelerator.num_processes > 1:
            # Its server takes as many prompts from every rank; phase 2 has as many as failed.
            raise ValueError("use_vllm with a critic runs on one process only so far; set use_vllm=False, or train on one process")

    # ---- phase 1 and 2: called by TRL as its rollout function -----------------------------------------------------------------------------------

    def _rollout(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, Any]:
        if not self.model.training:
            sampled = trl_seams.sample(self, prompts, self.num_generations_eval)
            return {"prompt_ids": sampled.prompt_ids, "completion_ids": sampled.completion_ids, "logprobs": sampled.logprobs}
        size, slots = self.num_generations, self.args.refine_slots
        batch = self._generation
        batch.group_rollouts = size - slots
        first_rows = [i for i in range(len(prompts)) if i % size < size - slots]
        first = trl_seams.sample(self, [prompts[i] for i in first_rows], size - slots)
        rewards, verdicts = self._score([self._rows[i] for i in first_rows], first)
        batch.attempts = self._attempts(first_rows, first, verdicts)
        batch.critiques = self._critiques(batch.attempts, verdicts)
        second_prompts, refines = self._second_prompts(prompts, batch)
        second = trl_seams.sample(self, second_prompts, 1)
        more, more_verdicts = self._score_padded(prompts, refines, second, first)
        self._fill(prompts, refines, second, more_verdicts)
        scored = torch.cat([rewards, more])
        batch.values, batch.rewards = self._weighted(scored).tolist(), scored[batch.order]
        batch.verdicts = [(verdicts + more_verdicts)[i] for i in batch.order]
        trl_seams.reorder_extra_columns(self, batch.order, len(scored))
        self._count_tokens(first, second, refines)
        return _assemble(first, second, batch.order)

    def _score(self, rows: list[dict], sampled: trl_seams.Sampled) -> tuple[torch.Tensor, list[Verdict]]:
        """Rewards (rows, functions) of this rank's completions, group-wise functions NaN, and their verdicts."""
        per_row = [i for i, function in enumerate(self.reward_funcs) if not getattr(function, "group_wise", False)]
        prompts = [row["prompt"] for row in rows]
        with trl_seams.reward_functions(self, per_row):
            scored = trl_seams.score(self, rows, prompts, sampled.completions, sampled.completion_ids)
        rewards = torch.full((len(rows), len(self.reward_funcs)), torch.nan, device=scored.device)
        rewards[:, per_row] = scored
        return rewards, self._verdicts(rewards)

    def _verdicts(self, rewards: torch.Tensor) -> list[Verdict]:
        """The verifier's own verdicts where a reward function has one, else from the weighted reward; all NaN is unscored, never failed."""
        verified = [function.verdicts for function in self.reward_funcs if isinstance(function, VerifierReward)]
        if verified:
            return list(verified[0])
        values = self._weighted(rewards).tolist()
        return [Verdict("unscored" if math.isnan(value) else "right" if value >= self.args.success_threshold else "wrong") for value in values]

    def _weighted(self, rewards: torch.Tensor) -> torch.Tensor:
        """The weighted reward of each row, (rows,); NaN where every function returned None."""
        values = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        return values.masked_fill(rewards.isnan().all(1), torch.nan)

    def _attempts(self, rows: list[int], sampled: trl_seams.Sampled, verdicts: list[Verdict]) -> list[Attempt]:
        triples = zip(rows, sampled.completions, verdicts, strict=True)
        return [Attempt(question_of(self._rows[i]["prompt"]), text_of(completion), verdict, self._rows[i]) for i, completion, verdict in triples]

    def _critiques(self, attempts: list[Attempt], verdicts: list[Verdict]) -> dict[int, Critique]:
        args, started = self.args, time.perf_counter()
        rollouts = self.num_generations - args.refine_slots
        asked = due(verdicts, rollouts, args.critique_when, args.refine_candidates or rollouts)
        answers = self.critic.critique([attempts[i] for i in asked]) if asked else []
        if len(answers) != len(asked):
            raise ValueError(f"critic {self.critic.name}: got {len(answers)} critiques for {len(asked)} attempts, expected one each, in order")
        critiques = dict(zip(asked, answers, strict=True))
        counts = self._generation.counts
        counts.update({"critique/seconds": time.perf_counter() - started, "critique/failed_rollouts": sum(v.failed for v in verdicts)})
        counts["critique/not_asked"] = counts["critique/failed_rollouts"] - len(asked)
        return self._drop_long(attempts, critiques)

    def _drop_long(self, attempts: list[Attempt], critiques: dict[int, Critique]) -> dict[int, Critique]:
        """Refine prompts that leave no room for an answer are skipped, with a reason."""
        usable = [i for i, critique in critiques.items() if critique.status == "ok"]
        lengths = trl_seams.prompt_lengths(self, [self._refine_prompt(attempts[i], critiques[i]) for i in usable])
        for i, length in zip(usable, lengths, strict=True):
            if length > self._prompt_limit:
                c = critiques[i]
                critiques[i] = Critique(c.text, c.critic, "skipped", "prompt_too_long", c.leaked, c.usage, c.cached)
        return critiques

    @property
    def _prompt_limit(self) -> int:
        if self.args.max_refine_prompt_length is not None:
            return self.args.max_refine_prompt_length
        context = getattr(self.accelerator.unwrap_model(self.model).config, "max_position_embeddings", None) or 1 << 30
        return context - self.max_completion_length

    def _refine_prompt(self, attempt: Attempt, critique: Critique) -> Any:
        return refine_prompt(attempt.row["prompt"], attempt, critique, self.args.refine_template)

    def _second_prompts(self, prompts: list[Any], batch: Generation) -> tuple[list[Any], list[int]]:
        """Prompts of phase 2 and, for each, the index of the attempt it refines, or -(group + 1) for a plain sample of a group's free slot."""
        rollouts, slots = self.num_generations - self.args.refine_slots, self.args.refine_slots
        usable = [i for i, critique in batch.critiques.items() if critique.status == "ok"]
        refines: list[int] = []
        for group in range(len(prompts) // self.num_generations):
            mine = [i for i in usable if i // rollouts == group]
            refines += mine + [-group - 1] * max(0, slots - len(mine))
        asked = [self._refine_prompt(batch.attempts[i], batch.critiques[i]) if i >= 0 else prompts[(-i - 1) * self.num_generations] for i in refines]
        return asked, refines

    def _score_padded(self, prompts, refines: list[int], second: trl_seams.Sampled, first: trl_seams.Sampled) -> tuple[torch.Tensor, list[Verdict]]:
        """Judge phase 2 as answers to the plain questions. Padded with copies to the most rows a rank can have: scoring gathers over ranks."""
        rollouts, size = self.num_generations - self.args.refine_slots, self.num_generations
        most = max(self.args.refine_candidates or rollouts, self.args.refine_slots) * (len(prompts) // size)
        groups = [i // rollouts if i >= 0 else -i - 1 for i in refines]
        pad = (most - len(refines)) if self.accelerator.num_processes > 1 else 0
        rows = [self._rows[group * size] for group in groups] + [self._rows[0]] * pad
        padded = trl_seams.Sampled([], second.completion_ids + [first.completion_ids[0]] * pad, None, second.completions + [first.completions[0]] * pad)
        rewards, verdicts = self._score(rows, padded)
        return rewards[: len(refines)], verdicts[: len(refines)]

    def _fill(self, prompts: list[Any], refines: list[int], second: trl_seams.Sampled, verdicts: list[Verdict]) -> None:
        """Decide which of phase 2 fills each reserved row, and record every candidate as a `Refinement`."""
        batch, size, slots = self._generation, self.num_generations, self.args.refine_slots
        rollouts, first = size - slots, len(batch.attempts)
        chosen: set[int] = set()
        for group in range(len(prompts) // size):
            candidates = [j for j, i in enumerate(refines) if i >= 0 and i // rollouts == group]
            plain = [j for j, i in enumerate(refines) if i == -group - 1]
            picked = [candidates[c] for c in choose([verdicts[j] for j in candidates], slots, _draw)]
            # Unscored candidates are the last resort: as plain rows they are unscorable and train nothing.
            spare = [j for j in candidates if j not in picked]
            filled = (picked + plain + spare)[:slots]
            chosen.update(picked)
            batch.refined += [group * size + rollouts + s for s, j in enumerate(filled) if j in picked]
            batch.order += [group * rollouts + r for r in range(rollouts)] + [first + j for j in filled]
        for j, i in enumerate(refines):
            text, verdict = text_of(second.completions[j]), verdicts[j]
            if i >= 0:
                batch.refinements.append((i, first + j, Refinement(batch.attempts[i], batch.critiques[i], text, verdict, j in chosen)))
            else:
                row = self._rows[(-i - 1) * size]
                batch.plain.append((-i - 1, first + j, Attempt(question_of(row["prompt"]), text, verdict, row)))

    # ---- tokens, counts and metrics -------------------------------------------------------------------------------------------------------------

    def _count_tokens(self, first: trl_seams.Sampled, second: trl_seams.Sampled, refines: list[int]) -> None:
        counts = self._generation.counts
        for j, i in enumerate(refines):
            owner = "refinement" if i >= 0 else "rollout"
            counts[f"tokens/{owner}"] += len(second.completion_ids[j])
            counts[f"tokens/{owner}_prompt"] += len(second.prompt_ids[j])
        counts["tokens/rollout"] += sum(map(len, first.completion_ids))
        counts["tokens/rollout_prompt"] += sum(map(len, first.prompt_ids))

    @property
    def generated_tokens(self) -> int:
        """Tokens sampled from policy weights for training so far, over all ranks: rollouts, refinement candidates, self-critiques."""
        return int(sum(self.tokens[f"tokens/{owner}"] for owner in ("rollout", "refinement", "self_critique")))

    def _generate_and_score_completions(self, inputs):
        training = self.model.training
        self._rows, self._generation = inputs, Generation()
        output = super()._generate_and_score_completions(inputs)
        if training:
            self._share_credit(output)
            self._log_generation(output)
            if self.on_generation is not None:
                self.on_generation(self._generation, self._advantages.tolist())
        return output

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        batch = self._generation
        if batch.rewards is None:
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            if self.model.training:
                self._record_plain(completions, completion_ids_list, rewards)
            return rewards
        whole = [i for i, function in enumerate(self.reward_funcs) if getattr(function, "group_wise", False)]
        if whole:
            with trl_seams.reward_functions(self, whole):
                batch.rewards[:, whole] = trl_seams.score(self, inputs, prompts, completions, completion_ids_list)
        return self.accelerator.gather(batch.rewards)

    def _record_plain(self, completions, completion_ids, gathered: torch.Tensor) -> None:
        """Without a critic: the same bookkeeping from what TRL sampled and scored."""
        batch, start = self._generation, self.accelerator.process_index * len(completions)
        own = gathered[start : start + len(completions)]
        batch.verdicts, batch.values, batch.group_rollouts = self._verdicts(own), self._weighted(own).tolist(), self.num_generations
        rows = zip(self._rows, completions, batch.verdicts, strict=True)
        batch.attempts = [Attempt(question_of(row["prompt"]), text_of(completion), verdict, row) for row, completion, verdict in rows]
        batch.order = list(range(len(completions)))
        batch.counts["tokens/rollout"] = sum(map(len, completion_ids))

    def _share_credit(self, output: dict[str, Any]) -> None:
        """Split TRL's advantages into the scalar term's (rollouts) and the refine term's (chosen refinements), each with its own normaliser."""
        args, batch = self.args, self._generation
        self._advantages = output["advantages"].clone()
        rollout_prompt = output["prompt_mask"].sum().item()
        batch.counts.setdefault("tokens/rollout_prompt", rollout_prompt)
        scalar = output["advantages"]
        if (args.positive_weight, args.negative_weight) != (1.0, 1.0):
            scalar = weighted_advantages(scalar, args.positive_weight, args.negative_weight)
        output["advantages"] = scalar
        if self.critic is None:
            return
        refined = torch.zeros(len(self._rows), dtype=torch.bool, device=scalar.device)
        refined[batch.refined] = True
        output["advantages"] = scalar.masked_fill(refined, 0.0)
        output["refine_credit"] = self._refine_credit(refined)
        tokens = output["completion_mask"].sum(1)
        reserved = torch.arange(len(tokens), device=tokens.device) % self.num_generations >= self.num_generations - args.refine_slots
        slots = reserved if args.refine_normalizer == "slots" else refined
        sums = torch.stack([tokens[~refined].sum(), tokens[slots].sum(), (~refined).sum(), torch.tensor(len(tokens), device=tokens.device)])
        total = self.accelerator.reduce(sums, reduction="sum")
        output["num_items_in_batch"], output["refine_tokens"] = total[0], total[1].clamp(min=1)
        output["rollout_share"] = total[2] / total[3]

    def _refine_credit(self, refined: torch.Tensor) -> torch.Tensor:
        if self.args.refine_ratio == "shaped":
            return self._advantages.masked_fill(~refined, 0.0)
        right = torch.tensor([verdict.outcome == "right" for verdict in self._generation.verdicts], device=refined.device)
        return (right & refined).float()

    def _log_generation(self, output: dict[str, Any]) -> None:
        """One gather of counters from all ranks, then tokens by owner and our metrics."""
        batch = self._generation
        batch.counts.update(counts_of(batch, self.num_generations, self.args.refine_slots if self.critic else 0))
        total: Counter = sum((Counter(counts) for counts in gather_object([dict(batch.counts)])), Counter())
        self.tokens.update({key: int(value) for key, value in total.items() if key.startswith("tokens/")})
        for owner, value in {**self.tokens, "tokens/generated": self.generated_tokens}.items():
            self._metrics["train"][owner] = [value]
        for name, value in metrics_of(total).items():
            trl_seams.metric(self, name, value)

    # ---- the objective --------------------------------------------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._live_logps = result[0]
        return result

    def _compute_loss(self, model, inputs):
        scalar = super()._compute_loss(model, inputs)
        logps_BT, self._live_logps = self._live_logps, None
        if "refine_credit" not in inputs:
            return scalar
        args = self.args
        if self.loss_type not in ("dapo", "cispo", "vespo"):
            # These divide by rows, and refinement rows (advantage 0) are among them.
            scalar = scalar / inputs["rollout_share"]
        total = refine_loss(logps_BT, inputs["refine_credit"], inputs["completion_mask"], args.refine_ratio, args.refine_gamma)
        normalizer = inputs["refine_tokens"] / self.accelerator.num_processes * self.current_gradient_accumulation_steps / args.steps_per_generation
        refine = args.refine_weight * total / normalizer
        trl_seams.metric(self, "loss/scalar", scalar.item())
        trl_seams.metric(self, "loss/refine", refine.item())
        if args.grad_norm_steps and self.state.global_step % args.grad_norm_steps == 0:
            self._log_grad_norms(model, {"scalar": scalar, "refine": refine})
        return scalar + refine

    def _log_grad_norms(self, model, terms: dict[str, torch.Tensor]) -> None:
        """Gradient norm of each term's share of this micro batch on this rank (before DDP's averaging)."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        for name, term in terms.items():
            gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            squares = [g.float().pow(2).sum() for g in gradients if g is not None]
            trl_seams.metric(self, f"grad_norm/{name}", torch.stack(squares).sum().sqrt().item() if squares else 0.0)


def _draw(n: int) -> int:
    # torch's generator, because its state is in every checkpoint.
    return int(torch.randint(n, (1,)))


def _refuse_unsupported(dataset: Any, kwargs: dict[str, Any]) -> None:
    for name in ("tools", "environment_factory", "rollout_func"):
        if kwargs.get(name) is not None:
            raise ValueError(f"{name} cannot be used with a critic: rollouts are sampled in two phases here. Leave out {name}, or set critic=None.")
    columns = set(getattr(dataset, "column_names", None) or ("prompt",))
    if columns & {"image", "images"}:
        raise ValueError("a dataset with images cannot be used with a critic (it reads text only). Drop the column, or set critic=None.")
    if "prompt" not in columns:
        raise ValueError(f"train_dataset: got the columns {', '.join(sorted(columns))}, expected one called 'prompt'; rename the column that holds it")


def _assemble(first: trl_seams.Sampled, second: trl_seams.Sampled, order: Sequence[int]) -> dict[str, Any]:
    """The batch in TRL's order. A refinement stands under the plain prompt of its group, which is that of the rollout before it."""
    count, prompt_ids, logprobs = len(first.completion_ids), [], []
    completions = first.completion_ids + second.completion_ids
    sampled = None if first.logprobs is None else [*first.logprobs, *second.logprobs]
    for i in order:
        prompt_ids.append(first.prompt_ids[i] if i < count else prompt_ids[-1])
        if sampled is not None:
            # A refinement was sampled under another prompt: None makes TRL's vLLM correction exactly 1 on its tokens.
            logprobs.append(sampled[i] if i < count or second.prompt_ids[i - count] == prompt_ids[-1] else [None] * len(completions[i]))
    return {"prompt_ids": prompt_ids, "completion_ids": [completions[i] for i in order], "logprobs": logprobs if sampled is not None else None}
