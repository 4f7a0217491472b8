"""CritiqueGRPOConfig: GRPOConfig with the options of the mixed objective, one block per term.

Defaults are stock GRPO; settings of published methods are in `presets`. Names and bounds are
checked when the config is made, before a model is loaded.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

from trl import GRPOConfig

from critique_rl.config.checks import suggest
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.trainer.presets import preset as preset_options
from critique_rl.trainer.teachers.section import read_teacher

CHOICES = {
    "credit": ("group", "signed"),
    "baseline": ("union", "rollouts"),
    "scalar_normalizer": ("rollouts", "subset"),
    "refine_ratio": ("shaped", "importance", "nll"),
    "refine_normalizer": ("slots", "tokens", "rollouts", "paper"),
    "refine_select": ("right_first", "random"),
    "refine_mentions": ("keep", "drop"),
    "refine_traces": ("always", "rescued"),
    "critique_when": ("rollout_failed", "group_failed"),
    "distill_mode": ("sampled", "advantage", "topk", "full"),
    "distill_target": ("rollouts", "refinements", "both"),
    "distill_context": ("critique", "sibling", "sibling_or_critique", "demonstration", "question"),
    "distill_contrast": ("none", "shuffled"),
    "distill_normalizer": ("own", "rollouts", "rows"),
    "distill_ema_per": ("step", "generation"),
}
"""Option -> its values."""
NUMBERS = {
    "positive_weight": (0, math.inf),
    "negative_weight": (0, math.inf),
    "subset_floor": (0, 1),
    "unlikely_advantage": (-math.inf, 0),
    "unlikely_share": (1e-12, 1),
    "refine_weight": (0, math.inf),
    # A least number of 1e-12 means "above 0", as the reference page writes it.
    "refine_gamma": (1e-12, math.inf),
    "refine_floor": (-math.inf, 0),
    "critique_share": (1e-12, 1),
    "critique_explore": (0, 1),
    "refine_own_weight": (0, math.inf),
    "refine_anchor_weight": (0, math.inf),
    "success_threshold": (-math.inf, math.inf),
    "distill_weight": (0, math.inf),
    "distill_ema": (1e-12, 1),
    "distill_alpha": (0, 1),
    "distill_is_clip": (1e-12, math.inf),
    "distill_entry_clip": (1e-12, math.inf),
}
"""Option -> (least, most), both included. Values are finite."""
COUNTS = {
    "refine_slots": 0,
    "refine_candidates": 0,
    "refine_turns": 1,
    "critique_staleness": 0,
    "max_refine_prompt_length": 1,
    "distill_top_k": 1,
    "grad_norm_steps": 0,
}
"""Option -> the least integer."""
SWITCHES = (
    "clip",
    "unlikely_entropy",
    "refine_clip",
    "critique_truncated",
    "refine_with_next",
    "critique_reuse",
    "distill_tail",
    "distill_prefix",
)
OPTIONAL = (
    "refine_floor",
    "distill_is_clip",
    "distill_entry_clip",
    "refine_candidates",
    "max_refine_prompt_length",
)
"""Options that may be None."""


def _option(default: Any, help: str) -> Any:
    # transformers' argument parser shows `help`; the reference page is written from it too.
    return field(default=default, metadata={"help": help})


def _is_number(value: Any, kinds: type | tuple[type, ...]) -> bool:
    # bool is a subclass of int: `refine_slots: true` would count as 1.
    return isinstance(value, kinds) and not isinstance(value, bool)


def _value_fault(name: str, value: Any) -> str:
    """The expected values of an option in words, if `value` is none of them; else ""."""
    if name in SWITCHES:
        expected = "true or false"
        fits = isinstance(value, bool)
    elif name in COUNTS:
        expected = f"a whole number from {COUNTS[name]}"
        fits = _is_number(value, int) and value >= COUNTS[name]
    else:
        low, high = NUMBERS[name]
        expected = f"a number from {low:g} to {high:g}"
        fits = _is_number(value, (int, float))
        if fits:
            # NaN lies in no range.
            fits = math.isfinite(value) and low <= value <= high
    if fits:
        return ""
    return expected


@dataclass
class CritiqueGRPOConfig(GRPOConfig):
    """GRPOConfig with the options of critique-augmented training.
    `CritiqueGRPOConfig.from_preset("nsr", output_dir=...)` starts from a published method.
    """

    credit: str = _option(
        "group",
        "Credit of rollouts: group (TRL's advantages), or signed (+1 for right, -1 for failed, "
        "without a baseline: PSR, NSR).",
    )
    baseline: str = _option(
        "union",
        "The group mean is over rollouts and refinements (union: Critique-GRPO), or over rollouts "
        "alone (LUFFY, RLTF-SD).",
    )
    positive_weight: float = _option(1.0, "Factor on positive advantages of rollouts.")
    negative_weight: float = _option(1.0, "Factor on negative advantages of rollouts.")
    clip: bool = _option(True, "False: the scalar term's ratio is not clipped.")
    scalar_normalizer: str = _option(
        "rollouts",
        "The scalar term is divided by all rollouts, or by those that carry credit "
        "(subset: PSR, NSR).",
    )
    subset_floor: float = _option(
        0.125,
        "A subset counts as at least this share of the rollouts, so that a lone failure does not "
        "take the step of a full batch.",
    )
    unlikely_advantage: float = _option(
        0.0,
        "Advantage, at most 0, that the least likely tokens of each rollout get beside its own "
        "(OPSA: -.5); 0: none.",
    )
    unlikely_share: float = _option(
        0.2, "Share of a rollout's tokens, those of lowest log-prob, that get it."
    )
    unlikely_entropy: bool = _option(
        False,
        "Up to twice that advantage, rising with the entropy at the token among the tokens that "
        "get it (OPSA's own form).",
    )

    refine_slots: int = _option(
        1,
        "Reserved rows k of each group of num_generations, which refinements fill (the paper's "
        "7 + 1: 1 of 8). 0: no refinements.",
    )
    refine_candidates: int | None = _option(
        None, "Refinements m sampled per group at most; None: all N - k. m = k is the cheap mode."
    )
    refine_turns: int = _option(
        1,
        "Turns of critique and refinement at most: a refinement that failed is critiqued and "
        "refined again. The last of each chain may fill a slot; the others train nothing.",
    )
    refine_weight: float = _option(1.0, "Weight of the refine term.")
    refine_ratio: str = _option(
        "shaped",
        "Per-token weight: shaped p/(p+gamma) (Critique-GRPO), importance p/p_old under the "
        "question (RLTF-SD), nll (RAFT).",
    )
    refine_gamma: float = _option(0.1, "gamma of the shaped ratio.")
    refine_clip: bool = _option(
        False,
        "Clip the ratio to 1 -+ epsilon, as in Critique-GRPO's paper: a wrong refinement then has "
        "no gradient where p < .4.",
    )
    refine_floor: float | None = _option(
        None, "Refinement tokens with an old log-prob under this are masked (RLTF-SD: -5)."
    )
    refine_select: str = _option(
        "right_first", "Which candidates fill the slots: right ones first, or at random."
    )
    refine_normalizer: str = _option(
        "slots",
        "What the refine term is divided by: tokens of all reserved slots, filled or not (slots); "
        "tokens of refinements (tokens); as rollout rows are (rollouts); 1/k as in the paper "
        "(paper).",
    )
    refine_mentions: str = _option(
        "keep",
        "Refinements that speak of the critique ('as you noted') are counted, and kept or dropped.",
    )
    refine_column: str | None = _option(
        None,
        "Fill reserved rows with expert traces of this dataset column instead of refinements "
        "(LUFFY).",
    )
    refine_traces: str = _option(
        "always",
        "Traces of refine_column stand in every group (always), or exactly where a right "
        "refinement would have stood (rescued): refinements are sampled as without the column, "
        "and each chosen right one gives its row to the trace.",
    )
    refine_own_weight: float = _option(
        0.0,
        "Weight of the nll of right refinements under their own prompt (keeps the refine skill: "
        "GOLF, ERL).",
    )
    refine_anchor_weight: float = _option(
        0.0,
        "Weight of KL(base || policy) on right refinements under their own prompt (keeps the "
        "refine skill).",
    )
    refine_template: str = _option(
        "refine", "Template of prompts/ that a refinement is sampled from."
    )
    max_refine_prompt_length: int | None = _option(
        None,
        "Refine and teacher prompts with more tokens are skipped and counted. None: the tokens "
        "that the context leaves.",
    )
    critique_when: str = _option(
        "rollout_failed",
        "Critique every failed rollout (rollout_failed), or only those of groups in which every "
        "rollout failed (group_failed).",
    )
    critique_staleness: int = _option(
        0,
        "1: while the critic answers on a batch, the next one is sampled, and each batch is "
        "trained one generation later; for critics outside this process. 0: each step waits.",
    )
    refine_with_next: bool = _option(
        False,
        "With critique_staleness 1: refinements are sampled in one call with the next batch's "
        "rollouts, after the critic has answered. For critics that answer while the policy trains.",
    )
    critique_truncated: bool = _option(
        True,
        "False: a failed rollout that was cut at max_completion_length is not critiqued, but "
        "counted under critique/skipped/truncated.",
    )
    critique_share: float = _option(
        1.0,
        "Share of the failures that would be critiqued which the critic is asked about: distinct "
        "faults first, then groups without a right rollout, then families by rescue rate. Further "
        "turns refine what was asked about.",
    )
    critique_explore: float = _option(
        0.1,
        "Under critique_share below 1, share of those asked about that is drawn at random; 1: all "
        "of them, the control of the rule.",
    )
    critique_reuse: bool = _option(
        False,
        "A failed rollout with the text of an earlier one of its group takes that one's critique, "
        "without a call, and is counted under critique/cached. critique_share is then of the other "
        "failures.",
    )
    # None first: so TRL's argument parser takes one name.
    success_reward: None | str | list[str] = _option(  # noqa: RUF009, RUF036
        None,
        "Name of the reward function that says which rollouts are right; of several names every "
        "one must, where it scored the row. None: the only verifier's, else the only one.",
    )
    success_threshold: float = _option(
        1.0, "Without a verifier: a rollout failed if that reward, unweighted, is under this."
    )

    distill_weight: float = _option(0.0, "Weight of the distillation term (0: off).")
    distill_mode: str = _option(
        "topk",
        "Divergence on the student's top k tokens (topk), on the full vocabulary (full), on the "
        "sampled token (sampled), or the sampled token's log-ratio added to the advantages under "
        "the scalar term's clip (advantage: OPD).",
    )
    distill_target: str = _option(
        "rollouts", "Distill on the policy's own rollouts, on chosen right refinements, or both."
    )
    distill_context: str = _option(
        "critique",
        "What the teacher reads beside the question: critique, a right sibling, "
        "sibling_or_critique, demonstration; or question, the prompt of a failed rollout as it is, "
        "with nothing beside it (with a base teacher an anchor alone).",
    )
    distill_contrast: str = _option(
        "none",
        "shuffled (RLCSD, mode advantage): the token's advantage is its log-ratio under the "
        "critique against the critique of another problem of the step, of the same family; not "
        "against the policy.",
    )
    distill_template: str = _option(
        "teacher",
        "Template of prompts/ that the teacher reads for a rollout; for a refinement it reads the "
        "refine prompt.",
    )
    distill_column: str = _option("solution", "Dataset column of the demonstration.")
    # None first: so TRL's argument parser takes a name.
    distill_teacher: None | str | dict[str, Any] = _option(  # noqa: RUF009, RUF036
        "live",
        "live, ema or base: the policy's weights, their EMA, or those of the start (LoRA: adapter "
        "off; with pissa, olora and corda the adapter of the start). {model: ...}: another model "
        "with the policy's tokenizer. {base_url: ..., model: ...}: a server that gives log-probs "
        "of a text.",
    )
    distill_ema: float = _option(
        0.05, "EMA rate u of theta' <- (1 - u) theta' + u theta, once per `distill_ema_per`."
    )
    distill_ema_per: str = _option(
        "step",
        "The average moves once per optimizer step (step), or once per generation batch, after its "
        "last step (generation: SDPO's code).",
    )
    distill_alpha: float = _option(
        0.5, "0: KL(teacher || student), 1: KL(student || teacher), between: TRL's generalised JSD."
    )
    distill_top_k: int = _option(100, "k of topk.")
    distill_tail: bool = _option(True, "topk: one bucket for the other tokens; False: renormalise.")
    distill_is_clip: float | None = _option(
        2.0, "Each token's divergence is weighted by min(p / p_old, this), detached. None: 1."
    )
    distill_entry_clip: float | None = _option(
        None,
        "The most that one entry of the vocabulary adds to a token's divergence (OPSD: .05); the "
        "modes topk and full only. None: no clip.",
    )
    distill_normalizer: str = _option(
        "own",
        "Divide the term by the tokens of its rows (own), or of all rollouts (rollouts): its pull "
        "then fades with the failures. rows: a mean over each row's tokens, then over the rows.",
    )
    distill_prefix: bool = _option(
        False,
        "Weight each token by min(1, prod p_T / p_S over the tokens before it): after a fault that "
        "the teacher would not have made it counts no more.",
    )

    grad_norm_steps: int = _option(
        50,
        "Log each term's gradient norm once per this many steps (one backward pass per term; not "
        "under FSDP and DeepSpeed); 0: never.",
    )

    @classmethod
    def from_preset(cls, name: str, output_dir: str, **explicit: Any) -> CritiqueGRPOConfig:
        """A published method's settings (`presets`). Where both set an option, `explicit` wins.

        Raises:
            ConfigError: no preset has that name.
            ValueError: as the constructor does.
        """
        return cls(output_dir=output_dir, **{**preset_options(name), **explicit})

    def __post_init__(self):
        """Check every option.

        Raises:
            ValueError: an option has a value out of its choices or bounds, or two contradict each
                other.
        """
        super().__post_init__()
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(f"{name}: got {value!r}; {suggest(str(value), choices)}")
        read_teacher(self.distill_teacher)
        self._check_values()
        self._check_success_reward()
        self._check_slots()
        self._check_distillation()
        if self.baseline == "rollouts" and self.scale_rewards != "none":
            # If all rollouts failed, their std is 0, and a right refinement would earn 1 / 1e-4.
            raise ValueError(
                f"baseline rollouts: got scale_rewards={self.scale_rewards!r}, expected 'none'"
            )

    def _check_values(self) -> None:
        """Raises: ValueError: a number, count or switch is out of its bounds."""
        for name in (*NUMBERS, *COUNTS, *SWITCHES):
            value = getattr(self, name)
            if value is None and name in OPTIONAL:
                continue
            expected = _value_fault(name, value)
            if expected:
                raise ValueError(f"{name}: got {value!r}, expected {expected}")
        if self.critique_staleness > 1:
            raise ValueError(
                f"critique_staleness: got {self.critique_staleness}, expected 0 or 1: the critic "
                "is asked about one batch at a time"
            )

    def _check_success_reward(self) -> None:
        """Raises: ValueError: no name, and no list of names."""
        names = self.success_reward
        if names is None:
            return
        if isinstance(names, str):
            names = [names]
        fits = isinstance(names, list) and len(names) > 0
        if fits:
            fits = all(isinstance(name, str) and name for name in names)
        if not fits:
            raise ValueError(
                f"success_reward: got {self.success_reward!r}, expected the name of a reward "
                "function, or a list of names"
            )

    def base_readers(self) -> list[str]:
        """What reads the base policy: beta, and the options whose teacher it is."""
        readers = []
        if self.beta:
            readers.append(f"beta {self.beta:g}")
        if self.distill_weight and self.distill_teacher == "base":
            readers.append("distill_teacher base")
        if self.refine_anchor_weight:
            readers.append(f"refine_anchor_weight {self.refine_anchor_weight:g}")
        return readers

    def verdict_readers(self, has_critic: bool) -> list[str]:
        """What asks which rollouts are right, in words."""
        readers = []
        if has_critic:
            readers.append("a critic")
        if self.refine_column:
            readers.append("refine_column")
        if self.credit == "signed":
            readers.append("credit signed")
        if self.distill_weight and self.distill_context == "question":
            readers.append("distill_context question")
        if self.distill_weight and "sibling" in self.distill_context:
            readers.append(f"distill_context {self.distill_context}")
        return readers

    def check_trains(self, has_critic: bool) -> None:
        """Check that every term that is switched on has something to train on.

        Args:
            has_critic: Whether the trainer gets a critic.

        Raises:
            ValueError: a term would be 0 throughout the run, or no term is left.
        """
        has_refinements = bool((has_critic or self.refine_column) and self.refine_slots)
        # Expert traces have no refine prompt, under which a teacher or these two terms would read.
        has_refine_prompts = bool(has_critic and self.refine_slots and not self.refine_column)
        self._check_turns(has_critic)
        self._check_staleness(has_critic)
        self._check_distillation_input(has_critic, has_refine_prompts)
        if self.refine_traces == "rescued" and not (has_critic and self.refine_column):
            raise ValueError(
                "refine_traces 'rescued': got no refinements whose rows traces could take. "
                "Pass a critic and refine_column, or use refine_traces always"
            )
        for name in ("refine_own_weight", "refine_anchor_weight"):
            if getattr(self, name) and not has_refine_prompts:
                raise ValueError(
                    f"{name}: got {getattr(self, name)} without refinements, which it is for. "
                    "Pass a critic and refine_slots, or set it to 0"
                )
        scalar_weight = self.positive_weight or self.negative_weight or self.unlikely_advantage
        refine_weight = self.refine_weight or self.refine_own_weight or self.refine_anchor_weight
        refines = has_refinements and refine_weight
        if not (scalar_weight or self.distill_weight or refines):
            raise ValueError(
                "no term trains anything: the scalar weights are 0, and there is nothing to refine "
                "or distill. Pass a critic, or raise a weight"
            )

    def _check_turns(self, has_critic: bool) -> None:
        """Raises: ValueError: further turns would have no refinements to refine."""
        if self.refine_turns == 1:
            return
        missing = remedy = ""
        if not has_critic:
            missing = "a critic"
            remedy = "Pass a critic, or set it to 1"
        elif not self.refine_slots:
            missing = "reserved rows (refine_slots is 0)"
            remedy = "Set refine_slots to 1 or more, or refine_turns to 1"
        elif self.refine_column is not None and not self.swaps_refinements:
            missing = "refinements: refine_column fills every reserved row"
            remedy = "Use refine_traces rescued, leave refine_column out, or set it to 1"
        if missing:
            raise ValueError(f"refine_turns: got {self.refine_turns} without {missing}. {remedy}")

    def _check_staleness(self, has_critic: bool) -> None:
        """Raises: ValueError: no critic could be waited for less."""
        if not self.critique_staleness:
            if self.refine_with_next:
                raise ValueError(
                    "refine_with_next: got critique_staleness 0, under which refinements are "
                    "sampled before the next batch. Set it to 1"
                )
            return
        fault = ""
        if not has_critic:
            fault = "without a critic. Pass one, or set it to 0"
        elif self.refine_with_next and not self.refine_slots:
            fault = (
                "and refine_with_next with refine_slots 0, so that there is no refinement to "
                "sample. Set refine_slots to 1 or more, or refine_with_next to false"
            )
        elif self.refine_turns > 1:
            fault = (
                f"with refine_turns {self.refine_turns}, whose later turns wait for the critic. "
                "Set one of them to 1 or 0"
            )
        elif self.use_vllm and not self.vllm_importance_sampling_correction:
            fault = (
                "with vllm_importance_sampling_correction false: nothing would correct for the "
                "older policy. Set it to true, or critique_staleness to 0"
            )
        if fault:
            raise ValueError(f"critique_staleness: got {self.critique_staleness} {fault}")

    def _check_distillation_input(self, has_critic: bool, has_refinements: bool) -> None:
        """Raises: ValueError: the teacher would have nothing to read, or no row to teach on."""
        if not self.distill_weight:
            return
        on_rollouts = self.distill_target != "refinements"
        if on_rollouts and self.distill_context == "critique" and not has_critic:
            raise ValueError(
                "distill_context 'critique' without a critic would train nothing. Pass a critic, "
                "or use distill_context sibling or demonstration"
            )
        if not on_rollouts and not has_refinements:
            raise ValueError(
                "distill_target 'refinements' without refinements would train nothing. "
                "Pass a critic, and refine_slots of 1 or more"
            )

    def _check_slots(self) -> None:
        """Raises: ValueError: reserved rows or candidates do not fit into a group."""
        assert self.num_generations is not None, "GRPOConfig compares it with 2"
        most_slots = self.num_generations - 1
        if not 0 <= self.refine_slots <= most_slots:
            raise ValueError(
                f"refine_slots: got {self.refine_slots}, expected 0 to {most_slots} "
                "(num_generations - 1)"
            )
        if self.refine_candidates is None:
            return
        rollouts = self.num_generations - self.refine_slots
        if not self.refine_slots <= self.refine_candidates <= rollouts:
            raise ValueError(
                f"refine_candidates: got {self.refine_candidates}, expected {self.refine_slots} "
                f"(refine_slots) to {rollouts} (rollouts of a group)"
            )

    def _check_distillation(self) -> None:
        """Raises: ValueError: the mode gives no gradient of a divergence on the target's tokens."""
        if not self.distill_weight:
            return
        if self.sampled_token_only and self.distill_target != "rollouts":
            raise ValueError(
                f"distill_mode {self.distill_mode}: got distill_target {self.distill_target!r}, "
                "expected 'rollouts': the sampled log-ratio is the reverse-KL gradient on the "
                "policy's own tokens only. Use distill_mode topk or full for refinements"
            )
        self._check_contrast()
        self._check_served_teacher()
        if self.sampled_token_only and self.distill_entry_clip is not None:
            raise ValueError(
                f"distill_entry_clip: got {self.distill_entry_clip} under distill_mode "
                f"{self.distill_mode}, which reads no other entry of the vocabulary. Use "
                "distill_mode topk or full, or set it to null"
            )
        if self.distill_context == "question" and self.distill_teacher == "live":
            raise ValueError(
                "distill_context question: got distill_teacher live, which reads the same prompt "
                "as the policy and never differs from it. Use distill_teacher base or ema"
            )
        near_an_end = 0 < self.distill_alpha < 0.1 or 0.9 < self.distill_alpha < 1
        if self.distill_mode in ("topk", "full") and near_an_end:
            warnings.warn(
                f"distill_alpha {self.distill_alpha}: the family is discontinuous at 0 and 1, and "
                "nearly flat beside them; use 0, 1 or .1 to .9",
                stacklevel=2,
            )

    def _check_contrast(self) -> None:
        """Raises: ValueError: there is no critique to contrast, or no mode that could."""
        if self.distill_contrast == "none":
            return
        if self.distill_mode != "advantage" or self.distill_context != "critique":
            raise ValueError(
                f"distill_contrast {self.distill_contrast}: got distill_mode {self.distill_mode!r} "
                f"and distill_context {self.distill_context!r}, expected 'advantage' and "
                "'critique': the contrast is an advantage of tokens under two critiques"
            )

    def _check_served_teacher(self) -> None:
        """Raises: ValueError: the divergence reads more than the log-probs that a server gives."""
        if not isinstance(read_teacher(self.distill_teacher), Endpoint):
            return
        if not self.sampled_token_only:
            raise ValueError(
                f"distill_mode {self.distill_mode}: got a teacher behind a server, which gives the "
                "log-prob of each sampled token and no others. Use distill_mode sampled or "
                "advantage, or the teacher's weights: distill_teacher: {model: FOLDER_OR_HUB_ID}"
            )
        if self.temperature != 1.0:
            raise ValueError(
                f"temperature: got {self.temperature} with a teacher behind a server, which gives "
                "log-probs at temperature 1. Set trl.temperature to 1, or take the teacher's "
                "weights: distill_teacher: {model: FOLDER_OR_HUB_ID}"
            )

    @property
    def swaps_refinements(self) -> bool:
        """True where traces take the rows of right refinements, and no others."""
        return self.refine_column is not None and self.refine_traces == "rescued"

    @property
    def sampled_token_only(self) -> bool:
        """True for the modes that read the sampled token's log-probs alone."""
        return self.distill_mode in ("sampled", "advantage")

    @property
    def ratio_clip(self) -> tuple[float, float] | None:
        """(low, high): the refine term's ratio is clipped to [1 - low, 1 + high]. None: no clip."""
        if not self.refine_clip:
            return None
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        return self.epsilon, high

    @property
    def group_size(self) -> int:
        """Rows per group, N."""
        assert self.num_generations is not None, "GRPOConfig compares it with 2"
        return self.num_generations

    @property
    def group_rollouts(self) -> int:
        """Rows per group that are no reserved ones, N - k."""
        return self.group_size - self.refine_slots

    @property
    def group_candidates(self) -> int:
        """Refinements per group at most, m."""
        return self.refine_candidates or self.group_rollouts

    @property
    def completion_limit(self) -> int:
        """Tokens that a completion may have."""
        assert self.max_completion_length is not None, "prompts need room for an answer"
        return self.max_completion_length
