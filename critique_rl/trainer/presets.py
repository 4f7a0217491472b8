"""Published methods as settings of the one mixed objective: each function returns options of
`CritiqueGRPOConfig`, including TRL's.

Each docstring names the paper and its equation, and says under "Differences" where the preset
deviates. Where paper and released code differ there are two presets. Tests take the loss of each
from its formula, in numpy (`tests/preset_oracles.py`). All run on TRL's optimiser settings, its std
+ 1e-4 and the task's verifier. Left out: learning rate, batch and lengths, which the pipeline sets.
A key that the pipeline sets beats the preset, and the run's config lists it under `deviates`. To
add a preset, write a function, list it in `SCALAR`, `REFINE` or `DISTILL`, and put its formula
there.

Notation: x is the question, y a completion with tokens y_t, and R(y) its reward, 0 or 1. pi is the
policy in training, pi_old the one that sampled, pi_T the teacher, and p = pi(y_t | x, y_<t).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from critique_rl.config.checks import ConfigError, suggest

Options = dict[str, Any]

# Every preset states loss_type, scale_rewards and beta: other defaults in TRL must not change it.
NO_SCALAR: Options = {"positive_weight": 0.0, "negative_weight": 0.0}
"""No scalar term: every advantage is 0."""
SIGNED: Options = {
    "credit": "signed",
    "loss_type": "dapo",
    "scale_rewards": "none",
    "beta": 0.0,
    "refine_weight": 0.0,
    "refine_slots": 0,
}
"""Advantages of +1 and -1 under PPO's clip, averaged over tokens; no refinements."""
DISTILL_ONLY: Options = {
    **NO_SCALAR,
    "loss_type": "dapo",
    "scale_rewards": "none",
    "beta": 0.0,
    "refine_slots": 0,
    "distill_weight": 1.0,
}
"""Distillation on all num_generations rollouts, and no other term."""


# ---- scalar --------------------------------------------------------------------------------------


def grpo() -> Options:
    """GRPO: DeepSeekMath (arXiv 2402.03300), Eq. 3 and 4.

    Differences: beta is 0, not .04, as in DAPO and most later work. Set `beta` for the KL term.
    """
    return {"loss_type": "grpo", "scale_rewards": "group", "beta": 0.0}


def dr_grpo() -> Options:
    """Dr. GRPO (arXiv 2503.20783), section 3.2: GRPO that divides neither by the group's std nor by
    a completion's length.

    Differences: none known.
    """
    # TRL divides sums over tokens by the constant max_completion_length, as the paper's code does.
    return {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.0}


def psr() -> Options:
    """Positive sample reinforcement (arXiv 2506.01347), L_PSR of section 2.

    Right rollouts have advantage +1, all others 0. The loss is the mean over the former's tokens.

    Differences: no entropy bonus (the paper's is 1e-4, the default of its code .001). The code
    makes one update per 2,048 rows of the subset: 1 to 4 of a batch of 8,192. It weighs the last
    one by its rows. Ours makes as many as TRL does, whatever the subset, and counts right
    rollouts as at least `subset_floor` of all rollout tokens. The code also drops rows at random,
    so that they split evenly over GPUs.
    """
    # Without the floor a lone right rollout would take the step of a full batch.
    return {**SIGNED, "positive_weight": 1.0, "negative_weight": 0.0, "scalar_normalizer": "subset"}


def nsr() -> Options:
    """Negative sample reinforcement (arXiv 2506.01347), L_NSR of section 2.

    Wrong rollouts have advantage -1, all others 0. The loss is the mean over the former's tokens.

    Differences: those of `psr`.
    """
    return {**SIGNED, "positive_weight": 0.0, "negative_weight": 1.0, "scalar_normalizer": "subset"}


def w_reinforce() -> Options:
    """Weighted-REINFORCE (arXiv 2506.01347), section 5.

        L = lambda L_PSR + L_NSR,    lambda = .1, averaged over tokens of all rollouts

    Differences: no entropy bonus.
    """
    return {**SIGNED, "positive_weight": 0.1, "negative_weight": 1.0}


def opsa() -> Options:
    """The fixed advantage of OPSA's paper (arXiv 2608.31046), section 3.2: no teacher, no reward.

        A_t = -.5 on the 20 % of a rollout's tokens with the lowest log-prob, 0 on all others

    The loss is the mean over those tokens of a rollout, then over rollouts. The paper's claim is
    that this alone matches the advantages that a teacher gives (its Eq. 1 and 2).

    Differences: PPO's clip, where the paper writes -A log pi; tokens are chosen per rollout, as in
    the paper, while its code chooses among all tokens of a rank.
    """
    return {
        **NO_SCALAR,
        "loss_type": "grpo",
        "scale_rewards": "none",
        "beta": 0.0,
        "refine_weight": 0.0,
        "refine_slots": 0,
        "unlikely_advantage": -0.5,
        "unlikely_share": 0.2,
    }


def opsa_entropy() -> Options:
    """OPSA (arXiv 2608.31046), Eq. 4 and 5: `opsa` with an advantage that grows with entropy.

        A_t = -.5 - (H_t - H_min) / (2 (H_max - H_min)),    over the tokens that `opsa` takes

    Differences: those of `opsa`.
    """
    return {**opsa(), "unlikely_entropy": True}


# ---- refine --------------------------------------------------------------------------------------


def critique_grpo() -> Options:
    """Critique-GRPO (arXiv 2506.03106, late version), the objective of section 4.2.

        sum_t min(f A, clip(f) A),    f = p / (p + gamma),    A = R(y) - mean over the union

    A group has 7 rollouts and 1 refinement. Only groups in which every rollout failed are refined.

    Differences: sums over tokens are divided by the constant max_completion_length (Dr. GRPO's).
    Only failed rollouts are refined, and `refine_candidates` bounds how many. A group that is not
    refined has a plain rollout in the reserved row, and the mean is over rollouts of all groups.
    """
    return {
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "beta": 0.0,
        "critique_when": "group_failed",
        "refine_ratio": "shaped",
        "refine_gamma": 0.1,
        # The clip takes the gradient of a wrong refinement where f < .8, that is p < .4.
        "refine_clip": True,
        # The paper divides the refine term by the number k of refinements, not by tokens.
        "refine_normalizer": "paper",
    }


def critique_grpo_as_released() -> Options:
    """Critique-GRPO's released code (arXiv 2506.03106, commit e8f03a2), core_algos.

        sum_t f(p) A,    f(p) = p / (p + .1),    A = (R(y) - mean) / (std + eps) over the union

    Section 4.2 as the code computes it: no clip on either term, and each row weighs the same.

    Differences: sums over tokens are divided by max_completion_length and the number of rollouts;
    the code divides by the former alone, and then by an accidental factor. The code samples 8
    rollouts and a refinement of each, right ones too, and writes the chosen refinement over the
    first rollout. Ours samples 7, drops none, and refines the failed ones. One refinement fills one
    row, as in the paper; the code's default fills all 8 rows with it. No entropy bonus.
    """
    return {
        "loss_type": "dr_grpo",
        # Their script sets a key that their trainer does not read, so advantages keep the std.
        "scale_rewards": "group",
        "beta": 0.0,
        "clip": False,
        "refine_ratio": "shaped",
        "refine_gamma": 0.1,
        "refine_clip": False,
        "refine_normalizer": "rollouts",
    }


def luffy() -> Options:
    """LUFFY (arXiv 2504.14945), Eq. 5 and its code: one expert trace per group.

        sum_t f(p) A on the trace,    f(p) = p / (p + .1),    A = R(y) - mean over the rollouts

    No std, no clip and no KL. The trace is read from the dataset column `refine_column`.

    Differences: sums over tokens are divided by max_completion_length and the number of rollouts;
    the code has another constant. A trace is judged like any answer, so a wrong one is pushed down.
    """
    return {
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "beta": 0.0,
        "clip": False,
        "entropy_coef": 0.001,
        # In a group that failed, the trace's advantage is 1 and the rollouts' 0. The union's mean
        # would give 7/8 and -1/8.
        "baseline": "rollouts",
        "refine_column": "solution",
        "refine_ratio": "shaped",
        "refine_gamma": 0.1,
        "refine_normalizer": "rollouts",
    }


def rltf_sd() -> Options:
    """RLTF-SD (arXiv 2602.02482): second answers trained under the first prompt, as its
    `assemble_training_data_batched` does. We do not know its equation's number.

        rho_t (R(y1) - mean_j R(y0_j)),    rho_t = pi(y1_t | x0) / pi_old(y1_t | x0)

    y0 are first answers to x0; y1 is a second answer, sampled under the refine prompt. Tokens with
    log pi_old(y1_t | x0) under -5 are masked.

    Differences: four of eight rows are second answers, drawn at random from those of failed
    rollouts; the paper has one per first answer. The second turn is not trained under its own
    prompt (`refine_own_weight` would). The coefficient .1 is constant; the paper also raises it
    linearly from 0.
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
    """Refinement fine-tuning: RAFT (arXiv 2304.06767), section 3, on right refinements under the
    plain question, as ERL (arXiv 2602.13949) does. No scalar term.

        L = -sum_t log pi(y_t | x, y_<t) over right refinements y, divided by their tokens

    Differences: right first answers are left out, so that the arm isolates the refinements. Where a
    reserved row holds a wrong refinement, its tokens count in the divisor.
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
    """On-policy distillation from hindsight hints: OpenClaw-RL (arXiv 2603.10165), section 4.2.

        A_t = log pi_T(y_t | x, hint) - log pi_old(y_t | x),    under PPO's clip

    The critique is the hint. The teacher is the policy of now; it reads question and hint, not the
    attempt. The loss is the mean over the tokens of hinted rollouts.

    Differences: no vote among hints, and no least length of 10 characters. The code has another
    teacher, mean and clip: `opd_as_released`.
    """
    return {
        **DISTILL_ONLY,
        "distill_mode": "advantage",
        "distill_teacher": "live",
        # The code drops a turn without an accepted hint, so the mean is over hinted rollouts.
        "scalar_normalizer": "subset",
        "epsilon": 0.2,
        "epsilon_high": 0.28,
    }


def opd_as_released() -> Options:
    """`opd` as OpenClaw-RL's code runs it (arXiv 2603.10165, commit 0d034dd, openclaw-opd).

    The teacher is the policy of the start: the code serves it from a checkpoint that it never
    updates. The loss is the mean over a rollout's tokens, then over hinted rollouts. The clip is
    .2 on both sides, the default that the script leaves.

    Differences: no vote among hints, and no least length of 10 characters. The code divides the
    policy's logits by the sampling temperature of .6 and the teacher's by 1; ours have the same.
    """
    return {**opd(), "loss_type": "grpo", "distill_teacher": "base", "epsilon_high": 0.2}


def rlcsd() -> Options:
    """The contrast of RLCSD (arXiv 2606.11709), Eq. 7 with K = 1, as the advantage of a token.

        A_t = log pi_T(y_t | x, c, y_<t) - log pi_T(y_t | x, c', y_<t),    under PPO's clip

    c is the critique, c' the critique of another problem. What any hint does to the style of an
    answer cancels, and so does the policy: `opd` with another subtrahend, and nothing else.

    Differences: the paper adds lambda tanh(e / tau) of this e to the verifier's group advantages,
    under a clamp that keeps their sign, and splits the mean over tokens (Eq. 8 to 15). It therefore
    trains nothing in a group that failed as a whole, which on a plateau is every group. Its hints
    are right and wrong answers of the same group, with the mean over K = 4 wrong ones; its teacher
    is a copy of the policy of up to 10 steps ago, ours is live.
    """
    return {**opd(), "distill_contrast": "shuffled"}


def openclaw_combined() -> Options:
    """OpenClaw-RL's combined advantage (arXiv 2603.10165), as its combine_loss.py has it.

        A_t = w_RL r + w_OPD (log pi_T - log pi_old),    w_RL = w_OPD = 1, r = +-1

    The mean is over the tokens of all rollouts; those without a hint train on r alone.

    Differences: those of `opd`. r comes from the verifier, not from votes of a judge. The code has
    another teacher and mean: `openclaw_combined_as_released`.
    """
    return {
        **opd(),
        "credit": "signed",
        "positive_weight": 1.0,
        "negative_weight": 1.0,
        "scalar_normalizer": "rollouts",
    }


def openclaw_combined_as_released() -> Options:
    """`openclaw_combined` as the code runs it (arXiv 2603.10165, commit 0d034dd, openclaw-combine).

    The teacher is the policy of the start. The loss is the mean over a rollout's tokens, then over
    all rollouts. This script sets the clip of `opd`, .2 and .28.

    Differences: those of `opd_as_released`. r comes from the verifier, not from votes of a judge.
    """
    return {**openclaw_combined(), "loss_type": "grpo", "distill_teacher": "base"}


def sdpo() -> Options:
    """SDPO (arXiv 2601.20802), Eq. 1 with the settings of Table 12 without rich feedback.

        L = mean_t w_t JSD_.5(pi(. | x, y_<t) || pi_T(. | x, f, y_<t)),    w_t = min(pi / pi_old, 2)

    The teacher is an EMA of the policy. Its feedback f is a right sibling, or the critique in a
    group without a right one. The divergence reads the student's top 100 tokens and a tail bucket.
    As in its code, the average moves once per generation batch, however many updates that has.

    Differences: feedback is a critic's, not an environment's. Without a critic only siblings teach.
    The teacher's prompt is our template (`distill_template`): the same parts, other words; a
    sibling keeps its <think> part, which the code cuts. No second weight for the gap between the
    sampler's log-probs and the policy's. Tokens are averaged over the generation batch, in the code
    over a micro batch.
    """
    return {
        **DISTILL_ONLY,
        "distill_mode": "topk",
        "distill_top_k": 100,
        "distill_tail": True,
        "distill_alpha": 0.5,
        "distill_teacher": "ema",
        "distill_ema": 0.05,
        "distill_ema_per": "generation",
        "distill_is_clip": 2.0,
        "distill_context": "sibling_or_critique",
        # Where a sibling is right the teacher reads it, and a critique would be paid for unread.
        "critique_when": "group_failed",
    }


def sdpo_rich_feedback() -> Options:
    """`sdpo` with the settings of Table 12 (arXiv 2601.20802) for rich feedback, section 4.

        L = mean_t w_t KL(pi(. | x, y_<t) || pi_T(. | x, f, y_<t))

    Reverse KL on the student's top 20 tokens and a tail bucket; the teacher moves at a rate of .01.

    Differences: those of `sdpo`. The paper makes 32 updates per generation batch, which the
    pipeline sets (`steps_per_generation`). The released script sets the rate under a key that the
    released code does not have.
    """
    return {**sdpo(), "distill_alpha": 1.0, "distill_top_k": 20, "distill_ema": 0.01}


def sdft() -> Options:
    """SDFT (arXiv 2601.19897), Eq. 1: reverse KL to a teacher that reads a demonstration.

        L = mean_t KL(pi(. | x, y_<t) || pi_T(. | x, demonstration, y_<t))

    The divergence reads the full vocabulary. The teacher is an EMA of the policy; the demonstration
    stands in the column `distill_column`.

    Differences: we know Eq. 1 from its repository and its users, not from the paper. By its authors
    (issue 5 of idanshen/Self-Distillation) all its numbers come from forward KL:
    `sdft_as_released`. The teacher's prompt is our template (`distill_template`).
    """
    return {
        **DISTILL_ONLY,
        "distill_mode": "full",
        "distill_alpha": 1.0,
        "distill_teacher": "ema",
        "distill_ema": 0.01,
        "distill_is_clip": None,
        "distill_context": "demonstration",
        "distill_column": "solution",
    }


def sdft_as_released() -> Options:
    """`sdft` as its code runs it (arXiv 2601.19897, commit 3ffd555). It made the paper's numbers.

        L = mean over rollouts of mean_t KL(pi_T(. | x, demonstration, y_<t) || pi(. | x, y_<t))

    Forward KL. The average moves at a rate of .01, once per update.

    Differences: the code leaves out the first 3 tokens of each rollout, and weighs a rollout by the
    gap between the sampler's log-probs and the policy's. We read the code in a fork. The teacher's
    prompt is our template (`distill_template`).
    """
    return {**sdft(), "distill_alpha": 0.0, "distill_normalizer": "rows"}


def sdft_trl() -> Options:
    """SDFT (arXiv 2601.19897) with the settings of TRL's SDFTConfig, which are not the paper's.

        L = mean_t w_t JSD_.5(pi(. | x, y_<t) || pi_base(. | x, demonstration, y_<t))

    SDPO's Eq. 1, with the base as teacher and a demonstration (column `distill_column`) in place
    of the feedback. The divergence reads the student's top 100 tokens, renormalised.

    Differences: tokens are averaged over the rows that distill. The teacher's prompt is our
    template (`distill_template`).
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
    """OPSD (arXiv 2601.18734, third version), section 3.2: clipped forward KL to the frozen base.

        L = mean over rollouts of mean_t sum_v min(l_tv, .05),
        l_tv = pi_base(v | x, solution, y_<t) log(pi_base(v | x, solution, y_<t) / pi(v | x, y_<t))

    The base reads the reference solution (column `distill_column`). The clip of each vocabulary
    entry keeps words of style ("wait") from outweighing the mathematics; the sum may be negative.

    Differences: the teacher's prompt is our template (`distill_template`). .05 is the value of the
    code's scripts; the code averages over the tokens of a micro batch. We know section 3.2 and this
    code from its authors' answers (issues 2, 14 and 24) and from others' accounts.
    """
    # No importance weight: the paper samples and trains with the same weights.
    return {
        **sdft(),
        "distill_alpha": 0.0,
        "distill_teacher": "base",
        "distill_entry_clip": 0.05,
        "distill_normalizer": "rows",
    }


def opsd_v1() -> Options:
    """OPSD as first published (arXiv 2601.18734, first version; code of commit 590ec26).

        L = mean_t JSD_.5(pi(. | x, y_<t) || pi_base(. | x, solution, y_<t))

    Without the clip, over the tokens of all rollouts.

    Differences: the teacher's prompt is our template (`distill_template`). The code's script
    divides logits by 1.1, the temperature it samples with; so does ours if `temperature` is 1.1.
    """
    return {**sdft(), "distill_alpha": 0.5, "distill_teacher": "base"}


def distil() -> Options:
    """DistIL (arXiv 2606.05152): forward cross-entropy to the policy that reads the feedback.

        L = mean_t H(sg pi(. | x, f, y_<t), pi(. | x, y_<t)),    H(p, q) = -sum_v p(v) log q(v)

    The critique is the feedback f. The loss that is logged is KL(pi_T || pi), which is H less the
    teacher's entropy: the gradients are equal.

    Differences: the gradient of each token alone. The paper's also reaches earlier tokens, whose
    choice led to later disagreement; we do not know its estimator. We read abstract and project
    page, not the equations, and found no code. So the teacher's weights (ours: those of now), its
    vocabulary (ours: full) and the mean (the page has a sum over a rollout) may differ.
    """
    return {
        **DISTILL_ONLY,
        "distill_mode": "full",
        "distill_alpha": 0.0,
        "distill_teacher": "live",
        "distill_is_clip": None,
        "distill_context": "critique",
    }


def mixed() -> Options:
    """This project's scalar + refine + distill. No paper; chosen as in runs/results/mixed.md.

    Scalar: Dr. GRPO's group advantages (arXiv 2503.20783), without std. Refine: nll of one right
    refinement (RAFT, arXiv 2304.06767), sampled in the cheap mode. Distill: KL(base || policy) on
    the student's top 100 tokens with a tail bucket. On failed rollouts the base reads question and
    critique; on the refinement it reads the refine prompt. Tokens after a fault that the teacher
    would not have made weigh less (`objective.prefix_weight`).

    Differences from what is published: nll, not the shaped ratio; forward KL, not JSD; the base
    teaches, not an EMA.
    """
    return {
        "loss_type": "dapo",
        "scale_rewards": "none",
        "beta": 0.0,
        # The weights on positive and negative advantages stay 1: weighting failures more gained
        # nothing that repeated (runs/results/mixed.md).
        "refine_slots": 1,
        "refine_candidates": 1,
        # Ablation of one seed, pass@1 of the plateau family: nll .93, shaped ratio .88.
        "refine_ratio": "nll",
        "distill_weight": 1.0,
        "distill_mode": "topk",
        "distill_top_k": 100,
        "distill_tail": True,
        # In the ablation JSD (alpha .5) ended at .92.
        "distill_alpha": 0.0,
        # A teacher that moves with the policy, EMA or live, collapsed in the ablation.
        "distill_teacher": "base",
        "distill_target": "both",
        "distill_is_clip": None,
        # So the term's pull fades with the failures. Divided by its tokens alone, it cost the
        # learnable family .12 in the ablation.
        "distill_normalizer": "rollouts",
        # Past the first fault the base, which reads a critique of the right path, teaches the
        # misconception again: .82 without this weight.
        "distill_prefix": True,
    }


SCALAR = (grpo, dr_grpo, psr, nsr, w_reinforce, opsa, opsa_entropy)
REFINE = (critique_grpo, critique_grpo_as_released, luffy, rltf_sd, raft_refine)
OPENCLAW = (opd, opd_as_released, openclaw_combined, openclaw_combined_as_released)
SELF_DISTILL = (sdpo, sdpo_rich_feedback, sdft, sdft_as_released, sdft_trl, opsd, opsd_v1, distil)
DISTILL = (*OPENCLAW, rlcsd, *SELF_DISTILL)
PRESETS: dict[str, Callable[[], Options]] = {
    method.__name__: method for method in (*SCALAR, *REFINE, *DISTILL, mixed)
}


def preset(name: str) -> Options:
    """Options of the published method `name`, a new dict per call.

    Raises:
        ConfigError: no preset has that name; the message gives the nearest one.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset: unknown name {name!r}; {suggest(name, PRESETS)}")
    return PRESETS[name]()


def deviations(name: str, explicit: Options) -> dict[str, Options]:
    """Keys of `explicit`, which the pipeline sets, that beat the preset with another value.

    Returns:
        {key: {"preset": its value, "run": the pipeline's}}, without keys the preset leaves open.

    Raises:
        ConfigError: no preset has that name.
    """
    stated = preset(name)
    return {
        key: {"preset": stated[key], "run": value}
        for key, value in explicit.items()
        if key in stated and stated[key] != value
    }
