"""Published methods as settings of the one mixed objective: each function returns options of
`CritiqueGRPOConfig`, TRL's own included.

A preset states its loss_type, scale_rewards and beta, so that it means the same whatever TRL's
defaults become. Explicit keys of a pipeline beat it, and are listed in the run's config under
`deviates`. Where paper and released code differ there are two. Adding one is one function here,
named in `PRESETS`.

All: TRL's optimiser settings, its std + 1e-4, answers judged by the task's verifier; learning rate,
batch and lengths are the pipeline's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from critique_rl.config.checks import ConfigError, suggest

Options = dict[str, Any]

NO_SCALAR: Options = {"positive_weight": 0.0, "negative_weight": 0.0}
"""The scalar term off: every advantage is 0."""
SIGNED: Options = {
    "credit": "signed",
    "loss_type": "dapo",
    "scale_rewards": "none",
    "beta": 0.0,
    "refine_weight": 0.0,
    "refine_slots": 0,
}
"""Raw +-1 under PPO's clip, token mean; nothing is refined."""
DISTILL_ONLY: Options = {
    **NO_SCALAR,
    "loss_type": "dapo",
    "scale_rewards": "none",
    "beta": 0.0,
    "refine_slots": 0,
    "distill_weight": 1.0,
}


# ---- scalar --------------------------------------------------------------------------------------


def grpo() -> Options:
    """GRPO: DeepSeekMath (arXiv 2402.03300), Eq. 3 and 4.

    Differences: beta is 0, not .04 (as in DAPO and most later work; set `beta` for the KL term).
    """
    return {"loss_type": "grpo", "scale_rewards": "group", "beta": 0.0}


def dr_grpo() -> Options:
    """Dr. GRPO (arXiv 2503.20783), section 3.2: no division by the group's std nor by a
    completion's length.

    Differences: none known; TRL divides by max_completion_length, a constant, as the paper's code
    does.
    """
    return {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.0}


def psr() -> Options:
    """Positive sample reinforcement (arXiv 2506.01347), L_PSR of section 2: raw +1 on right
    rollouts only, token mean over them.

    Differences: no entropy bonus (theirs 1e-4); the subset's tokens are counted as at least
    `subset_floor` of all rollout tokens, because a lone row would otherwise take a whole step
    (their code drops rows for divisibility instead).
    """
    return {**SIGNED, "positive_weight": 1.0, "negative_weight": 0.0, "scalar_normalizer": "subset"}


def nsr() -> Options:
    """Negative sample reinforcement (arXiv 2506.01347), L_NSR of section 2: raw -1 on wrong
    rollouts only, token mean over them.

    Differences: as `psr`.
    """
    return {**SIGNED, "positive_weight": 0.0, "negative_weight": 1.0, "scalar_normalizer": "subset"}


def w_reinforce() -> Options:
    """Weighted-REINFORCE (arXiv 2506.01347), section 5: lambda L_PSR + L_NSR, lambda = .1, over all
    rows.

    Differences: no entropy bonus.
    """
    return {**SIGNED, "positive_weight": 0.1, "negative_weight": 1.0}


# ---- refine --------------------------------------------------------------------------------------


def critique_grpo() -> Options:
    """Critique-GRPO (arXiv 2506.03106, late version), the objective of section 4.2: 7 + 1, shaped
    ratio clipped, union baseline, no std, failed groups only.

    Differences: sums are divided by max_completion_length, a constant (Dr. GRPO's); only failed
    rollouts are refined, and `refine_candidates` bounds them.
    """
    return {
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "beta": 0.0,
        "critique_when": "group_failed",
        "refine_ratio": "shaped",
        "refine_gamma": 0.1,
        "refine_clip": True,
        "refine_normalizer": "paper",
    }


def critique_grpo_as_released() -> Options:
    """Critique-GRPO's released code (arXiv 2506.03106, commit e8f03a2): no clip on either term,
    std-normalised union advantages, every row weighs the same.

    The objective of section 4.2 as its core_algos computes it: f(pi) A with f = p / (p + gamma) and
    A = (R - mean) / (std + eps) over the union, summed over tokens. Differences: sums are divided
    by max_completion_length, a constant (Dr. GRPO's); only failed rollouts are refined (theirs:
    right ones too); n_prefix is 1 as in the paper (their default fills all slots with one
    refinement); no entropy bonus; not the accidental factor of theirs on the loss.
    """
    return {
        "loss_type": "dr_grpo",
        "scale_rewards": "group",
        "beta": 0.0,
        "clip": False,
        "refine_ratio": "shaped",
        "refine_gamma": 0.1,
        "refine_clip": False,
        "refine_normalizer": "rollouts",
    }


def luffy() -> Options:
    """LUFFY (arXiv 2504.14945), Eq. 5 and its code: one expert trace a group, shaped, baseline over
    on-policy rollouts alone; no std, clip or KL.

    f(pi) A with f = p / (p + .1) on the trace, which is read from the dataset's column
    `refine_column` ("solution"). Differences: sums are divided by max_completion_length, as the
    method's code does by a constant of its own; a trace is judged like any answer, so a wrong one
    is pushed down.
    """
    return {
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "beta": 0.0,
        "clip": False,
        "entropy_coef": 0.001,
        "baseline": "rollouts",
        "refine_column": "solution",
        "refine_ratio": "shaped",
        "refine_gamma": 0.1,
        "refine_normalizer": "rollouts",
    }


def rltf_sd() -> Options:
    """RLTF-SD (arXiv 2602.02482): second answers under the first prompt, ratio to the old policy
    *there*, first-turn baseline, logps under -5 masked.

    E over y1 ~ pi(.|refine prompt) of rho_t (R(y1) - mean_j R(y0_j)), rho_t = pi(y1_t|x0) /
    pi_old(y1_t|x0), as its `assemble_training_data_batched` trains it; the equation's number was
    not to be had. Differences: four of eight rows are second answers, drawn at random from those of
    failed rollouts (theirs: one a first answer); the second turn is not trained under its own
    prompt (`refine_own_weight` does); coefficient .1 constant (theirs also linear from 0).
    """
    return {
        "loss_type": "dapo",
        "scale_rewards": "none",
        "beta": 0.0,
        "baseline": "rollouts",
        "refine_slots": 4,
        "refine_select": "random",
        "refine_ratio": "importance",
        "refine_floor": -5.0,
        "refine_clip": True,
        "refine_weight": 0.1,
        "refine_normalizer": "rollouts",
    }


def raft_refine() -> Options:
    """Refinement fine-tuning: RAFT (arXiv 2304.06767) on right refinements under the plain
    question, as ERL (arXiv 2602.13949) internalises; no scalar term.

    L = -sum_t log pi(y_t|x) over right refinements y, divided by their tokens; RAFT's section 3
    (supervised fine-tuning on the best of K samples), reward 0 or 1. Differences: right first
    answers are not trained on (RAFT would), so that the arm isolates the refinements.
    """
    return {
        **NO_SCALAR,
        "loss_type": "dapo",
        "scale_rewards": "none",
        "beta": 0.0,
        "refine_ratio": "nll",
        "refine_normalizer": "tokens",
    }


# ---- distill -------------------------------------------------------------------------------------


def opd() -> Options:
    """On-policy distillation from hindsight hints: OpenClaw-RL (arXiv 2603.10165), section 4.2: A_t
    = log pi_T(a_t|s, hint) - log pi_old(a_t|s), PPO clip.

    The critique is the hint; the teacher reads question and hint, not the attempt. Differences: no
    vote among hints, no least length of 10 characters.
    """
    return {
        **DISTILL_ONLY,
        "distill_mode": "advantage",
        "distill_teacher": "live",
        "scalar_normalizer": "subset",
        "epsilon": 0.2,
        "epsilon_high": 0.28,
    }


def openclaw_combined() -> Options:
    """OpenClaw-RL's combined loss (arXiv 2603.10165; code combine_loss.py): A_t = w_RL r + w_OPD
    (log pi_T - log pi_old), both weights 1, r = +-1.

    Differences: as `opd`; r is the verifier's, not a judge's vote.
    """
    return {
        **opd(),
        "credit": "signed",
        "positive_weight": 1.0,
        "negative_weight": 1.0,
        "scalar_normalizer": "rollouts",
    }


def sdpo() -> Options:
    """SDPO (arXiv 2601.20802), Table 12: JSD to an EMA teacher that reads a right sibling, or the
    critique where there is none; top 100 of the student, tail.

    L = mean_t w_t JSD_.5(pi(.|x, y_<t) || pi_T(.|x, f, y_<t)), w_t = min(pi / pi_old, 2): its Eq.
    1. Differences: the feedback is a critic's, where the paper has an environment's; without a
    critic only siblings teach. Critiques are asked for where no sibling is right, and so one would
    be read.
    """
    return {
        **DISTILL_ONLY,
        "distill_mode": "topk",
        "distill_top_k": 100,
        "distill_tail": True,
        "distill_alpha": 0.5,
        "distill_teacher": "ema",
        "distill_ema": 0.05,
        "distill_is_clip": 2.0,
        "distill_context": "sibling_or_critique",
        "critique_when": "group_failed",
    }


def sdft() -> Options:
    """SDFT (arXiv 2601.19897) with TRL's settings: JSD to the base, which reads a demonstration
    (column `distill_column`, "solution"); top 100 renormalised.

    L = mean_t JSD_.5(pi(.|x, y_<t) || pi_base(.|x, demonstration, y_<t)) on own rollouts y: SDPO's
    Eq. 1 with a demonstration for the feedback. Differences: TRL's SDFTConfig is the reference, and
    the original code was not read, so that differences from it are not known; tokens are averaged
    over own rows.
    """
    return {
        **DISTILL_ONLY,
        "distill_mode": "topk",
        "distill_top_k": 100,
        "distill_tail": False,
        "distill_alpha": 0.5,
        "distill_teacher": "base",
        "distill_is_clip": 2.0,
        "distill_context": "demonstration",
        "distill_column": "solution",
    }


def opsd() -> Options:
    """OPSD (arXiv 2601.18734): exact full-vocabulary JSD, beta .5, on own rollouts to the frozen
    base that reads the reference solution (`distill_column`).

    L = mean_t JSD_.5(pi(.|x, y_<t) || pi_base(.|x, solution, y_<t)), summed over the whole
    vocabulary (the number of its equation is not known to us). Differences: the teacher's template
    is ours (`distill_template`); no importance weight (theirs is on-policy).
    """
    return {**sdft(), "distill_mode": "full", "distill_is_clip": None}


# ---- ours ----------------------------------------------------------------------------------------


def mixed() -> Options:
    """Ours: scalar + refine + distill. No paper; how it was chosen is in `runs/README.md`.

    Scalar: Dr. GRPO's group advantages (arXiv 2503.20783), without std (failures weighted more
    gained nothing that repeated). Refine: nll of one right refinement (RAFT, arXiv 2304.06767),
    sampled in the cheap mode. Distill: KL(base || policy) on the student's top 100 with tail, on
    failed rollouts (the base reads question and critique) and on the refinement (it reads the
    refine prompt), no more after a fault the teacher would not have made
    (`objective.prefix_weight`). Differences from what is published: nll, not shaped; forward KL,
    not JSD; the base, not an EMA, teaches. The ablation (runs/README.md, one seed) has shaped and
    JSD a little lower on the plateau family, and a teacher that moves with the policy, EMA or live,
    collapsed.
    """
    return {
        "loss_type": "dapo",
        "scale_rewards": "none",
        "beta": 0.0,
        "refine_slots": 1,
        "refine_candidates": 1,
        "refine_ratio": "nll",
        "distill_weight": 1.0,
        "distill_mode": "topk",
        "distill_top_k": 100,
        "distill_tail": True,
        "distill_alpha": 0.0,
        "distill_teacher": "base",
        "distill_target": "both",
        "distill_is_clip": None,
        "distill_normalizer": "rollouts",
        "distill_prefix": True,
    }


PRESETS: dict[str, Callable[[], Options]] = {
    f.__name__: f
    for f in (
        grpo,
        dr_grpo,
        psr,
        nsr,
        w_reinforce,
        critique_grpo,
        critique_grpo_as_released,
        luffy,
        rltf_sd,
        raft_refine,
        opd,
        openclaw_combined,
        sdpo,
        sdft,
        opsd,
        mixed,
    )
}


def preset(name: str) -> Options:
    """Options of a published method. ConfigError, with the nearest name, where there is none of
    that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset: unknown name {name!r}; {suggest(name, PRESETS)}")
    return PRESETS[name]()


def deviations(name: str, explicit: Options) -> dict[str, Options]:
    """Keys that beat the preset with another value: {key: {"preset": ..., "run": ...}}."""
    stated = preset(name)
    return {
        key: {"preset": stated[key], "run": value}
        for key, value in explicit.items()
        if key in stated and stated[key] != value
    }
