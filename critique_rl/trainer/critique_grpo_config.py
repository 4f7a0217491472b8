"""CritiqueGRPOConfig: GRPOConfig with the options of the mixed objective, one block a term.
Defaults are stock GRPO; published settings are in `presets`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

from critique_rl.config.checks import suggest
from critique_rl.trainer.presets import preset as preset_options

CHOICES = {
    "credit": ("group", "signed"),
    "baseline": ("union", "rollouts"),
    "scalar_normalizer": ("rollouts", "subset"),
    "refine_ratio": ("shaped", "importance", "nll"),
    "refine_normalizer": ("slots", "tokens", "rollouts", "paper"),
    "refine_select": ("right_first", "random"),
    "refine_mentions": ("keep", "drop"),
    "critique_when": ("rollout_failed", "group_failed"),
    "distill_mode": ("sampled", "advantage", "topk", "full"),
    "distill_target": ("rollouts", "refinements", "both"),
    "distill_context": ("critique", "sibling", "sibling_or_critique", "demonstration"),
    "distill_normalizer": ("own", "rollouts"),
    "distill_teacher": ("live", "ema", "base"),
}


NUMBERS = {
    "positive_weight": (0, math.inf),
    "negative_weight": (0, math.inf),
    "subset_floor": (0, 1),
    "refine_weight": (0, math.inf),
    "refine_gamma": (1e-12, math.inf),
    "refine_floor": (-math.inf, 0),
    "refine_own_weight": (0, math.inf),
    "refine_anchor_weight": (0, math.inf),
    "success_threshold": (-math.inf, math.inf),
    "distill_weight": (0, math.inf),
    "distill_ema": (1e-12, 1),
    "distill_alpha": (0, 1),
    "distill_is_clip": (1e-12, math.inf),
}
"""Finite numbers between these, both included."""
COUNTS = {
    "refine_slots": 0,
    "refine_candidates": 0,
    "max_refine_prompt_length": 1,
    "distill_top_k": 1,
    "grad_norm_steps": 0,
}
"""Whole numbers of at least this."""
SWITCHES = ("clip", "refine_clip", "distill_tail", "distill_prefix")
OPTIONAL = ("refine_floor", "distill_is_clip", "refine_candidates", "max_refine_prompt_length")


def _option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class CritiqueGRPOConfig(GRPOConfig):
    """GRPOConfig with the options of critique-augmented training.
    `CritiqueGRPOConfig.from_preset("nsr", output_dir=...)` starts from a published method.
    """

    credit: str = _option(
        "group",
        "Credit of rollouts: group (TRL's advantages) or signed (raw +1 right, -1 failed, no baseline: PSR, NSR).",
    )
    baseline: str = _option(
        "union",
        "Group mean over rollouts and refinements (union: Critique-GRPO) or over rollouts alone (LUFFY, RLTF-SD).",
    )
    positive_weight: float = _option(1.0, "Factor on positive advantages of rollouts.")
    negative_weight: float = _option(1.0, "Factor on negative advantages of rollouts.")
    clip: bool = _option(True, "False: the scalar term's ratio is not clipped.")
    scalar_normalizer: str = _option(
        "rollouts",
        "The scalar term is divided by all rollouts, or by those that carry credit (subset: PSR, NSR).",
    )
    subset_floor: float = _option(
        0.125,
        "Share of the rollouts that a subset counts as at least: a lone failure must not take a whole step.",
    )

    refine_slots: int = _option(
        1,
        "Reserved rows k of each group of num_generations that refinements fill (the paper's 7 + 1: 1 of 8). 0: no refinements.",
    )
    refine_candidates: int | None = _option(
        None, "Refinements m sampled a group at most; None: all N - k. m = k is the cheap mode."
    )
    refine_weight: float = _option(1.0, "Weight of the refine term.")
    refine_ratio: str = _option(
        "shaped",
        "Per-token weight: shaped p/(p+gamma) (Critique-GRPO), importance p/p_old under the question (RLTF-SD), nll (RAFT).",
    )
    refine_gamma: float = _option(0.1, "gamma of the shaped ratio.")
    refine_clip: bool = _option(
        False,
        "Clip the ratio to 1 -+ epsilon, as Critique-GRPO's paper: a wrong refinement then has no gradient where p < .4.",
    )
    refine_floor: float | None = _option(
        None, "Refinement tokens with an old log-prob under this are masked (RLTF-SD: -5)."
    )
    refine_select: str = _option(
        "right_first", "Which candidates fill the slots: right ones first, or at random."
    )
    refine_normalizer: str = _option(
        "slots",
        "Divide the refine term by the tokens of all reserved slots, filled or not, by its own tokens, as rollout rows, or as the paper (1/k).",
    )
    refine_mentions: str = _option(
        "keep",
        "Refinements that speak of the critique ('as you noted') are counted, and kept or dropped.",
    )
    refine_column: str | None = _option(
        None,
        "Fill reserved rows with expert traces of this dataset column instead of refinements (LUFFY).",
    )
    refine_own_weight: float = _option(
        0.0,
        "Weight of the nll of right refinements under their own prompt (keeps the refine skill: GOLF, ERL).",
    )
    refine_anchor_weight: float = _option(
        0.0,
        "Weight of KL(base || policy) on right refinements under their own prompt (keeps the refine skill).",
    )
    refine_template: str = _option(
        "refine", "Template of prompts/ that a refinement is sampled from."
    )
    max_refine_prompt_length: int | None = _option(
        None,
        "Refine and teacher prompts with more tokens are skipped and counted. None: what the context leaves.",
    )
    critique_when: str = _option(
        "rollout_failed",
        "Critique every failed rollout, or only those of groups that failed as a whole (group_failed).",
    )
    success_threshold: float = _option(
        1.0, "Without a verifier: a rollout failed if its weighted reward is under this."
    )

    distill_weight: float = _option(0.0, "Weight of the distillation term (0: off).")
    distill_mode: str = _option(
        "topk",
        "Divergence on the student's top k tokens (topk), the whole vocabulary (full), the sampled token (sampled), or the sampled token's log-ratio "
        "added to the advantages under the scalar term's clip (advantage: OPD).",
    )
    distill_target: str = _option(
        "rollouts", "Distill on the policy's own rollouts, on chosen right refinements, or both."
    )
    distill_context: str = _option(
        "critique",
        "What the teacher reads beside the question: critique, a right sibling, sibling_or_critique, demonstration.",
    )
    distill_template: str = _option(
        "teacher",
        "Template of prompts/ that the teacher reads for a rollout; for a refinement it reads the refine prompt.",
    )
    distill_column: str = _option("solution", "Dataset column of the demonstration.")
    distill_teacher: str = _option(
        "live", "Teacher weights: the live policy, its EMA, or the base (LoRA: adapter off)."
    )
    distill_ema: float = _option(
        0.05, "EMA rate u of theta' <- (1 - u) theta' + u theta, once an optimizer step."
    )
    distill_alpha: float = _option(
        0.5, "0: KL(teacher || student), 1: KL(student || teacher), between: TRL's generalised JSD."
    )
    distill_top_k: int = _option(100, "k of topk.")
    distill_tail: bool = _option(True, "topk: one bucket for the other tokens; False: renormalise.")
    distill_is_clip: float | None = _option(
        2.0, "Each token's divergence is weighted by min(p / p_old, this), detached. None: 1."
    )
    distill_normalizer: str = _option(
        "own",
        "Divide the term by the tokens of its rows, or of all rollouts: its pull then fades with the failures.",
    )
    distill_prefix: bool = _option(
        False,
        "Weight each token by min(1, prod p_T / p_S over the tokens before it): after a fault the teacher would not have made it counts no more.",
    )

    grad_norm_steps: int = _option(
        10,
        "Log each term's gradient norm every so many steps (a backward pass a term; not under FSDP and DeepSpeed); 0: never.",
    )

    @classmethod
    def from_preset(cls, name: str, output_dir: str, **explicit: Any) -> CritiqueGRPOConfig:
        """A published method's settings (`presets`), with `explicit` ones in their place where both
        are given.
        """
        return cls(output_dir=output_dir, **{**preset_options(name), **explicit})

    def __post_init__(self):
        super().__post_init__()
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name}: got {getattr(self, name)!r}; {suggest(str(getattr(self, name)), choices)}"
                )
        self._check_values()
        self._check_slots()
        self._check_distillation()
        if self.baseline == "rollouts" and self.scale_rewards != "none":
            # Where all rollouts failed their std is 0, and a right refinement would earn 1 / 1e-4.
            raise ValueError(
                f"baseline rollouts: got scale_rewards={self.scale_rewards!r}, expected 'none'"
            )

    def _check_values(self) -> None:
        for name in (*NUMBERS, *COUNTS, *SWITCHES):
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            if name in SWITCHES:
                fits, expected = isinstance(value, bool), "true or false"
            elif name in COUNTS:
                fits, expected = (
                    isinstance(value, int)
                    and not isinstance(value, bool)
                    and value >= COUNTS[name],
                    f"a whole number from {COUNTS[name]}",
                )
            else:
                low, high = NUMBERS[name]
                fits = (
                    isinstance(value, int | float)
                    and not isinstance(value, bool)
                    and math.isfinite(value)
                    and low <= value <= high
                )
                expected = f"a number from {low:g} to {high:g}"
            if not fits:
                hint = " (YAML reads 1e-1 as text; write 1.0e-1)" if isinstance(value, str) else ""
                raise ValueError(f"{name}: got {value!r}, expected {expected}{hint}")

    def check_trains(self, has_critic: bool) -> None:
        """ValueError for terms that nothing would feed, so that they would be 0 for the whole run."""
        refines = bool((has_critic or self.refine_column) and self.refine_slots)
        if (
            self.distill_weight
            and self.distill_target != "refinements"
            and self.distill_context == "critique"
            and not has_critic
        ):
            raise ValueError(
                "distill_context 'critique' without a critic would train nothing. Pass a critic, or use distill_context sibling or demonstration"
            )
        if self.distill_weight and self.distill_target == "refinements" and not refines:
            raise ValueError(
                "distill_target 'refinements' without refinements would train nothing. Pass a critic, and refine_slots of 1 or more"
            )
        for name in ("refine_own_weight", "refine_anchor_weight"):
            if getattr(self, name) and not (has_critic and self.refine_slots):
                raise ValueError(
                    f"{name}: got {getattr(self, name)} without refinements, which it is for. Pass a critic and refine_slots, or set it to 0"
                )
        scalar = self.positive_weight or self.negative_weight
        fed = refines and (
            self.refine_weight or self.refine_own_weight or self.refine_anchor_weight
        )
        if not scalar and not self.distill_weight and not fed:
            raise ValueError(
                "no term trains anything: the scalar weights are 0, and there is nothing to refine or distill. Pass a critic, or raise a weight"
            )

    def _check_slots(self) -> None:
        if not 0 <= self.refine_slots < self.num_generations:
            raise ValueError(
                f"refine_slots: got {self.refine_slots}, expected 0 to {self.num_generations - 1} (num_generations - 1)"
            )
        most = self.num_generations - self.refine_slots
        if (
            self.refine_candidates is not None
            and not self.refine_slots <= self.refine_candidates <= most
        ):
            raise ValueError(
                f"refine_candidates: got {self.refine_candidates}, expected {self.refine_slots} (refine_slots) to {most} (rollouts of a group)"
            )

    def _check_distillation(self) -> None:
        if not self.distill_weight:
            return
        if self.sampled_token_only and self.distill_target != "rollouts":
            raise ValueError(
                f"distill_mode {self.distill_mode}: got distill_target {self.distill_target!r}, expected 'rollouts': the sampled log-ratio is the reverse-KL "
                "gradient on the policy's own tokens only. Use distill_mode topk or full for refinements"
            )
        if self.distill_mode in ("topk", "full") and (
            0 < self.distill_alpha < 0.1 or 0.9 < self.distill_alpha < 1
        ):
            warnings.warn(
                f"distill_alpha {self.distill_alpha}: the family is discontinuous at 0 and 1, and nearly flat beside them; use 0, 1 or .1 to .9",
                stacklevel=2,
            )

    @property
    def sampled_token_only(self) -> bool:
        """True for the modes that look at the sampled token alone."""
        return self.distill_mode in ("sampled", "advantage")

    @property
    def ratio_clip(self) -> tuple[float, float] | None:
        """(low, high) of the refine term's clip, None where it has none."""
        return (
            (self.epsilon, self.epsilon if self.epsilon_high is None else self.epsilon_high)
            if self.refine_clip
            else None
        )
