"""The objective against numbers worked by hand, gradients against autograd, and the divergences
against TRL's own.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from critique_rl.objective import (
    divergence,
    group_advantages,
    importance_weight,
    refine_loss,
    sampled_divergence,
    shaped_ratio,
    signed_credit,
    weighted_advantages,
    with_tail,
)


def logs(*probabilities: float, grad: bool = False) -> Tensor:
    return torch.log(torch.tensor(probabilities, dtype=torch.float64)).requires_grad_(grad)


# ---- credit --------------------------------------------------------------------------------------


def test_the_union_baseline_gives_one_right_refinement_seven_eighths() -> None:
    rewards = torch.tensor([0.0] * 7 + [1.0])
    # mean 1/8: -.125 seven times, .875 once; std with ddof 1 is .35355, so through TRL -.3535 and
    # 2.4742
    assert group_advantages(rewards, 8).tolist() == pytest.approx([-0.125] * 7 + [0.875])
    assert group_advantages(rewards, 8, scale="std").tolist() == pytest.approx(
        [-0.3535] * 7 + [2.4742], abs=1e-4
    )
    assert group_advantages(rewards, 8, baseline="none").tolist() == [0.0] * 7 + [1.0]


def test_a_baseline_over_rollouts_alone_leaves_the_refinement_its_whole_reward() -> None:
    rollouts = torch.tensor([True] * 7 + [False])
    # mean of the seven rollouts 0
    assert group_advantages(torch.tensor([0.0] * 7 + [1.0]), 8, counted=rollouts).tolist() == [
        0.0
    ] * 7 + [1.0]
    # rollouts 1 0 0 1: mean .5, std (ddof 1) sqrt(4 * .25 / 3) = .57735; +-.5 / .57745 = +-.86588;
    # the refinement (1) earns as much as a right rollout
    rewards, rollouts = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0]), torch.tensor([True] * 4 + [False])
    assert group_advantages(rewards, 5, counted=rollouts).tolist() == pytest.approx(
        [0.5, -0.5, -0.5, 0.5, 0.5]
    )
    expected = [0.86588, -0.86588, -0.86588, 0.86588, 0.86588]
    assert group_advantages(rewards, 5, scale="std", counted=rollouts).tolist() == pytest.approx(
        expected, abs=1e-5
    )


def test_a_reward_that_is_missing_is_not_counted_and_earns_nothing() -> None:
    rewards = torch.tensor([math.nan, 1.0, 0.0, 0.0])
    # mean of three 1/3; std (ddof 1) .57735: 2/3 / .57745 = 1.15450, -1/3 / .57745 = -.57725
    assert group_advantages(rewards, 4).tolist() == pytest.approx([0.0, 2 / 3, -1 / 3, -1 / 3])
    assert group_advantages(rewards, 4, scale="std").tolist() == pytest.approx(
        [0.0, 1.15450, -0.57725, -0.57725], abs=1e-4
    )
    # asked to count it changes nothing; left out as well, the first zero is not in the mean of 1
    # and 0
    assert group_advantages(
        rewards, 4, counted=torch.ones(4, dtype=torch.bool)
    ).tolist() == pytest.approx([0.0, 2 / 3, -1 / 3, -1 / 3])
    assert group_advantages(
        rewards, 4, counted=torch.tensor([True, True, False, True])
    ).tolist() == pytest.approx([0.0, 0.5, -0.5, -0.5])
    assert group_advantages(torch.full((2,), math.nan), 2, scale="std").tolist() == [0.0, 0.0]


def test_groups_do_not_mix_and_must_be_whole() -> None:
    # groups [1, 0] and [1, 1]: means .5 and 1
    assert group_advantages(torch.tensor([1.0, 0.0, 1.0, 1.0]), 2).tolist() == [0.5, -0.5, 0.0, 0.0]
    with pytest.raises(AssertionError, match="3 rewards"):
        group_advantages(torch.zeros(3), 2)


def test_weights_act_on_their_own_sign_only() -> None:
    assert weighted_advantages(torch.tensor([2.0, -2.0, 0.0]), 0.1, 3.0).tolist() == pytest.approx(
        [0.2, -6.0, 0.0]
    )


def test_signed_credit_is_plus_for_right_minus_for_wrong_and_nothing_for_missing() -> None:
    rewards = torch.tensor([1.0, 0.0, math.nan])
    assert signed_credit(rewards).tolist() == [1.0, -1.0, 0.0]
    assert signed_credit(rewards, 1.0, 0.0).tolist() == [1.0, 0.0, 0.0]  # PSR
    assert signed_credit(rewards, 0.0, 1.0).tolist() == [0.0, -1.0, 0.0]  # NSR
    assert signed_credit(rewards, 0.1, 1.0).tolist() == pytest.approx(
        [0.1, -1.0, 0.0]
    )  # W-REINFORCE


def test_nsr_moves_the_wrong_token_down_and_others_up_by_their_probability() -> None:
    logits = logs(0.5, 0.3, 0.2, grad=True)
    logps = torch.log_softmax(logits, -1)
    credit = signed_credit(torch.tensor([0.0]), 0.0, 1.0)
    # -(p / p_old) * (-1) at the sampled token 0, pi = .5: descent is -(1 - .5), +.3, +.2
    refine_loss(
        logps[:1].view(1, 1), logps[:1].detach().view(1, 1), credit, torch.ones(1, 1), "importance"
    ).backward()
    assert (-logits.grad).tolist() == pytest.approx([-0.5, 0.3, 0.2])
    assert logits.grad.sum().item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_positive_and_negative_reinforcement_have_the_same_expected_gradient(seed: int) -> None:
    logits = torch.randn(
        5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True
    )
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    logps = torch.log_softmax(logits, -1)

    def expected_gradient(positive: float, negative: float) -> Tensor:
        credit = signed_credit(rewards, positive, negative)
        return torch.autograd.grad(
            (logps.exp().detach() * credit * logps).sum(), logits, retain_graph=True
        )[0]

    # E[(R - 1) grad log pi] = E[R grad log pi] - E[grad log pi], and the last is 0; component v is
    # pi_v (R_v - E[R])
    psr, nsr = expected_gradient(1.0, 0.0), expected_gradient(0.0, 1.0)
    p = logps.exp().detach()
    torch.testing.assert_close(psr, p * (rewards - (p * rewards).sum()))
    torch.testing.assert_close(nsr, psr)
    torch.testing.assert_close(expected_gradient(1.0, 1.0), 2 * psr)


# ---- refine --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "expected"),
    # d/d(log p) of p/(p+g) = g p / (p+g)^2, g = .1: p = .1 -> .01/.04 = .25; p = 1 -> .1/1.21 =
    # .0826; p = .001 -> .0001/.010201 = .0098
    [(0.1, 0.25), (1.0, 0.1 / 1.21), (0.001, 0.0001 / 0.010201)],
)
def test_the_shaped_ratio_and_its_slope_are_as_published(p: float, expected: float) -> None:
    logps = torch.tensor(math.log(p), dtype=torch.float64, requires_grad=True)
    value = shaped_ratio(logps, 0.1)
    value.backward()
    assert value.item() == pytest.approx(p / (p + 0.1))
    assert logps.grad.item() == pytest.approx(expected)


def test_the_shaped_ratio_stays_finite_where_the_probability_underflows() -> None:
    logps = torch.tensor(-200.0, requires_grad=True)
    value = shaped_ratio(logps, 0.1)
    value.backward()
    assert 0.0 <= value.item() < 1e-30
    assert 0.0 <= logps.grad.item() < 1e-30


def test_the_refine_term_counts_only_masked_tokens_of_rows_with_credit() -> None:
    logps = logs(0.1, 0.1, 0.4, 0.4).view(2, 2)
    mask = torch.tensor([[1, 0], [1, 1]])
    # shaped: f(.1) = .5, f(.4) = .8; credit .875 and 0: -(.875 * .5) = -.4375
    assert refine_loss(
        logps, logps, torch.tensor([0.875, 0.0]), mask, "shaped", 0.1
    ).item() == pytest.approx(-0.4375)
    # nll of row 1 alone: -2 log .4 = 1.8326
    assert refine_loss(
        logps, logps, torch.tensor([0.0, 1.0]), mask, "nll", 0.1
    ).item() == pytest.approx(1.8326, abs=1e-4)
    # importance, old .2 throughout: ratios .5 and (masked) and 2, 2; -(.875 * .5 + .5 * 4) =
    # -2.4375
    old = logs(0.2, 0.2, 0.2, 0.2).view(2, 2)
    assert refine_loss(
        logps, old, torch.tensor([0.875, 0.5]), mask, "importance"
    ).item() == pytest.approx(-2.4375)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    # p = .1, .4, .9 against old .2, .4, .6, credit .5: shaped -.5 * .1 p / (p + .1)^2 = -.5 * (.25,
    # .16, .09); importance -.5 * (.5, 1, 1.5); nll -.5
    [
        ("shaped", [-0.125, -0.08, -0.045]),
        ("importance", [-0.25, -0.5, -0.75]),
        ("nll", [-0.5, -0.5, -0.5]),
    ],
)
def test_the_slope_of_each_ratio_is_its_formula(ratio: str, expected: list[float]) -> None:
    logps = logs(0.1, 0.4, 0.9, grad=True)
    refine_loss(
        logps.view(1, 3),
        logs(0.2, 0.4, 0.6).view(1, 3),
        torch.tensor([0.5]),
        torch.ones(1, 3),
        ratio,
        0.1,
    ).backward()
    assert logps.grad.tolist() == pytest.approx(expected)


def test_a_wrong_refinement_is_pushed_down_everywhere_but_boundedly() -> None:
    logps = torch.log(torch.tensor([[1e-6, 0.1, 0.9]])).requires_grad_()
    refine_loss(
        logps, logps.detach(), torch.tensor([-0.5]), torch.ones(1, 3), "shaped", 0.1
    ).backward()
    # the loss's slope is +.5 g p/(p+g)^2: positive (descent lowers p), at most .5 * .25
    assert (logps.grad > 0).all()
    assert logps.grad.max().item() <= 0.125 + 1e-6


def test_the_papers_clip_spares_an_unlikely_wrong_refinement() -> None:
    def slopes(credit: float, clip: tuple[float, float] | None) -> list[float]:
        logps = logs(0.01, 0.1, 0.39, 0.41, 0.9, grad=True)
        refine_loss(
            logps.view(1, 5),
            logps.detach().view(1, 5),
            torch.tensor([credit]),
            torch.ones(1, 5),
            "shaped",
            0.1,
            clip,
        ).backward()
        return logps.grad.tolist()

    # f(p) < 1 - .2 where p < .1 * .8 / .2 = .4: there min(f A, .8 A) is the constant .8 A
    # slopes .1 p / (p + .1)^2: .001/.0121 = .0826, .25, .039/.2401 = .1624, .041/.2601 = .1576, .09
    assert slopes(-1.0, (0.2, 0.2))[:3] == [0.0, 0.0, 0.0]
    assert slopes(-1.0, (0.2, 0.2))[3:] == pytest.approx([0.1576, 0.09], abs=1e-4)
    assert slopes(-1.0, None) == pytest.approx([0.0826, 0.25, 0.1624, 0.1576, 0.09], abs=1e-4)
    # a right refinement is never clipped: f stays under 1.2
    assert slopes(1.0, (0.2, 0.2)) == pytest.approx(
        [-0.0826, -0.25, -0.1624, -0.1576, -0.09], abs=1e-4
    )


def test_the_importance_ratio_starts_at_one_and_is_clipped_like_ppos() -> None:
    def slopes(old: Tensor, credit: float, clip: tuple[float, float] | None) -> list[float]:
        logps = logs(0.1, 0.4, 0.9, grad=True)
        refine_loss(
            logps.view(1, 3),
            old.view(1, 3),
            torch.tensor([credit]),
            torch.ones(1, 3),
            "importance",
            clip=clip,
        ).backward()
        return logps.grad.tolist()

    same, half, double = logs(0.1, 0.4, 0.9), logs(0.2, 0.8, 1.8), logs(0.05, 0.2, 0.45)
    assert slopes(same, 0.7, (0.2, 0.2)) == pytest.approx([-0.7] * 3)
    assert slopes(same, -0.7, None) == pytest.approx([0.7] * 3)
    # ratio 2 is past 1.2 for credit > 0, ratio 1/2 past .8 for credit < 0; the other way round each
    # still learns
    assert slopes(double, 1.0, (0.2, 0.2)) == [0.0] * 3
    assert slopes(double, -1.0, (0.2, 0.2)) == pytest.approx([2.0] * 3)
    assert slopes(half, -1.0, (0.2, 0.2)) == [0.0] * 3
    assert slopes(half, 1.0, (0.2, 0.2)) == pytest.approx([-0.5] * 3)


@pytest.mark.parametrize("ratio", ["shaped", "importance", "nll"])
def test_tokens_the_old_policy_would_hardly_have_written_are_masked_by_the_floor(
    ratio: str,
) -> None:
    logps = torch.tensor([[-4.0, -6.0, -1.0]], requires_grad=True)
    # the floor is on the old log-prob: -4.9 and -5 stay, -5.1 goes although the new one is high
    refine_loss(
        logps,
        torch.tensor([[-4.9, -5.0, -5.1]]),
        torch.tensor([1.0]),
        torch.ones(1, 3),
        ratio,
        floor=-5.0,
    ).backward()
    assert (logps.grad[0, :2] < 0).all()
    assert logps.grad[0, 2].item() == 0.0


@pytest.mark.parametrize("ratio", ["shaped", "importance", "nll"])
@pytest.mark.parametrize("clip", [None, (0.2, 0.2)])
@pytest.mark.parametrize(
    "mask", [[[1, 1], [1, 1]], [[0, 0], [1, 1]]], ids=["rollouts in the mask", "rollouts masked"]
)
def test_a_rollout_row_whose_ratio_overflows_harms_nothing(
    ratio: str, clip: tuple[float, float] | None, mask: list[list[int]]
) -> None:
    # row 0 is a rollout, credit 0, log-ratio 200: exp overflows float32
    logps = torch.tensor([[0.0, -1.0], [-1.0, -2.0]], requires_grad=True)
    old = torch.tensor([[-200.0, -1.0], [-1.0, -2.0]])
    loss = refine_loss(logps, old, torch.tensor([0.0, 1.0]), torch.tensor(mask), ratio, 0.1, clip)
    loss.backward()
    assert math.isfinite(loss.item())
    assert logps.grad[0].tolist() == [0.0, 0.0]
    assert (logps.grad[1] < 0).all()


def test_a_ratio_that_overflows_leaves_a_finite_gradient_under_the_clip() -> None:
    logps = torch.tensor([[0.0, -1.0]], requires_grad=True)
    loss = refine_loss(
        logps,
        torch.tensor([[-200.0, -1.0]]),
        torch.tensor([1.0]),
        torch.ones(1, 2),
        "importance",
        clip=(0.2, 0.2),
    )
    loss.backward()
    # min(e^200, 1.2) + 1, and the clipped token learns nothing
    assert loss.item() == pytest.approx(-2.2)
    assert logps.grad.tolist() == [[0.0, -1.0]]


# ---- distill -------------------------------------------------------------------------------------

STUDENT, TEACHER = (0.5, 0.3, 0.2), (0.1, 0.1, 0.8)


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        # KL(T||S) = .1 ln .2 + .1 ln 1/3 + .8 ln 4 = -.16094 - .10986 + 1.10904
        (0.0, 0.83823),
        # M = .7 S + .3 T = (.38, .24, .38); KL(S||M) = .5 ln .5/.38 + .3 ln .3/.24 + .2 ln .2/.38 =
        # .13722 + .06694 - .12837 = .07579;
        # KL(T||M) = .1 ln .1/.38 + .1 ln .1/.24 + .8 ln .8/.38 = -.13350 - .08755 + .59555 =
        # .37450; .7 * .07579 + .3 * .37450
        (0.3, 0.16540),
        # KL(S||T) = .5 ln 5 + .3 ln 3 + .2 ln .25 = .80472 + .32958 - .27726
        (1.0, 0.85704),
    ],
)
def test_the_divergence_runs_from_forward_to_reverse_kl(alpha: float, expected: float) -> None:
    # logits are log-probs up to a constant a token
    assert divergence(logs(*STUDENT) + 3.0, logs(*TEACHER) - 1.0, alpha).item() == pytest.approx(
        expected, abs=1e-5
    )
    assert divergence(logs(*STUDENT), logs(*STUDENT), alpha).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("alpha", "clip", "expected"),
    [
        # T (.1, .1, .8) against S (.5, .3, .2): .1 ln .2, .1 ln 1/3 and .8 ln 4 are -.16094,
        # -.10986 and 1.10904; at most .3 leaves .3 - .27080
        (0.0, 0.3, 0.02920),
        # S against T: .80472, .32958 and -.27726; at most .4 leaves .4 + .32958 - .27726
        (1.0, 0.4, 0.45232),
        # half of both parts of JSD, with M (.3, .2, .5): .12771 + -.05493, .06082 + -.03466,
        # -.09163 + .18800 by entry; at most .05 leaves .05 + .02616 + .05
        (0.5, 0.05, 0.12616),
        (0.0, 9.0, 0.83824),
    ],
)
def test_the_entry_clip_cuts_what_an_entry_adds_before_the_sum(alpha, clip, expected) -> None:
    student, teacher = logs(*STUDENT), logs(*TEACHER)
    assert divergence(student, teacher, alpha, entry_clip=clip).item() == pytest.approx(
        expected, abs=1e-5
    )


def test_the_divergence_jumps_at_both_ends_of_alpha_as_in_trl() -> None:
    # near an end the mixture is one of the two, so its divergence goes to 0, not to the KL that
    # stands at the end itself (.838 and .857)
    assert divergence(logs(*STUDENT), logs(*TEACHER), 0.01).item() < 0.01
    assert divergence(logs(*STUDENT), logs(*TEACHER), 0.99).item() < 0.01


@pytest.mark.parametrize(
    ("alpha", "tail", "expected"),
    [
        # S (.4, .3, .2, .1), T (.1, .2, .3, .4), two likeliest of S: tokens 0 and 1, bucket .3 and
        # .7
        # KL(S||T) = .4 ln 4 + .3 ln 1.5 + .3 ln 3/7 = .55452 + .12164 - .25419
        (1.0, True, 0.42197),
        # KL(T||S) = .1 ln 1/4 + .2 ln 2/3 + .7 ln 7/3 = -.13863 - .08109 + .59311
        (0.0, True, 0.37339),
        # renormalised (4/7, 3/7) and (1/3, 2/3): 4/7 ln 12/7 + 3/7 ln 9/14 = .30800 - .18936
        (1.0, False, 0.11864),
        # 1/3 ln 7/12 + 2/3 ln 14/9 = -.17967 + .29456
        (0.0, False, 0.11489),
    ],
)
def test_top_k_takes_the_students_likeliest_and_a_bucket_or_renormalises(
    alpha: float, tail: bool, expected: float
) -> None:
    student, teacher = logs(0.4, 0.3, 0.2, 0.1), logs(0.1, 0.2, 0.3, 0.4)
    assert divergence(student, teacher, alpha, top_k=2, tail=tail).item() == pytest.approx(
        expected, abs=1e-5
    )


def random_logits(
    seed: int = 0, shape: tuple[int, ...] = (2, 3, 11), dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=dtype) * 2 for _ in range(2))
    return student.requires_grad_(), teacher


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("tail", [True, False])
def test_top_k_of_everything_is_the_divergence_and_of_less_renormalises(
    alpha: float, tail: bool
) -> None:
    student, teacher = random_logits()
    for top_k in (11, 50):
        torch.testing.assert_close(
            divergence(student, teacher, alpha, top_k, tail), divergence(student, teacher, alpha)
        )
    picked, index = student.topk(4, -1)
    torch.testing.assert_close(
        divergence(student, teacher, alpha, 4, tail=False),
        divergence(picked, teacher.gather(-1, index), alpha),
    )


def test_the_tail_bucket_holds_the_rest() -> None:
    assert with_tail(
        logs(0.5, 0.3, 0.15, 0.05), torch.tensor([0, 1])
    ).exp().tolist() == pytest.approx([0.5, 0.3, 0.2])
    student = torch.log_softmax(random_logits()[0], -1)
    sums = with_tail(student, student.topk(4, -1).indices).exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    # all but masked tokens are picked: the bucket is tiny but finite, and so is the gradient
    logits = torch.tensor([60.0, 0.0, float("-inf")], requires_grad=True)
    everything = with_tail(torch.log_softmax(logits, -1), torch.tensor([0, 1]))
    everything[:2].sum().backward()
    assert everything.isfinite().all()
    assert everything[-1].exp() == 0
    assert logits.grad[:2].isfinite().all()


@pytest.mark.parametrize("gap", [5.0, 14.0, 17.0, 20.0, 40.0])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_tail_keeps_its_gradient_where_the_student_is_sure_of_an_error(
    gap: float, alpha: float
) -> None:
    """Against float64, where 1 - p would still hold: the teacher's token is outside the student's
    top k.
    """
    gradients = []
    for dtype in (torch.float32, torch.float64):
        student = torch.tensor([gap, gap - 3, 0.0, 0.0, 0.0, 0.0], dtype=dtype, requires_grad=True)
        divergence(
            student, torch.tensor([0.0, 0, 5, 0, 0, 0], dtype=dtype), alpha, top_k=2
        ).backward()
        gradients.append(student.grad.double())
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert alpha or gradients[0][0] > 0.9, "forward KL pulls with all its strength"


def test_the_sampled_form_is_the_held_log_ratio_times_the_log_prob() -> None:
    student = logs(0.4, 0.1, grad=True)
    each = sampled_divergence(student, logs(0.1, 0.2))
    # ln 4 * ln .4 = 1.38629 * -.91629; ln .5 * ln .1 = -.69315 * -2.30259
    assert each.tolist() == pytest.approx([-1.27025, 1.59603], abs=1e-5)
    each.sum().backward()
    # descent lowers what the student overrates (ratio > 0) and raises what the teacher likes better
    assert student.grad.tolist() == pytest.approx([math.log(4), math.log(0.5)])


@pytest.mark.parametrize("seed", range(6))
def test_the_sampled_form_is_the_reverse_kl_on_the_students_tokens_alone(seed: int) -> None:
    student, teacher = random_logits(seed, (8,))
    student = (student.detach() / 2).requires_grad_()
    student_logps = torch.log_softmax(student, -1)
    teacher_logps = torch.log_softmax(teacher / 2, -1)

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, student, retain_graph=True)[0]

    each = sampled_divergence(student_logps, teacher_logps)
    exact = gradient(divergence(student, teacher / 2, 1.0))
    on_own = gradient((student_logps.exp().detach() * each).sum())
    on_teachers = gradient((teacher_logps.exp() * each).sum())
    assert cosine_similarity(on_own, exact, 0).item() > 0.999
    torch.testing.assert_close(on_own, exact)
    # these six draws of eight logits N(0, 1): .47, .49, .67, .62, .88, .79
    assert cosine_similarity(on_teachers, exact, 0).item() < 0.9


def test_the_importance_weight_is_capped_and_held() -> None:
    logps = logs(0.1, 0.4, 0.9, grad=True)
    # .1/.2 = .5; .4/.3 = 1.333; .9/.1 = 9 -> 2
    weight = importance_weight(logps, logs(0.2, 0.3, 0.1), 2.0)
    assert weight.tolist() == pytest.approx([0.5, 4 / 3, 2.0])
    assert not weight.requires_grad
    assert importance_weight(logps, logs(0.2, 0.3, 0.1), None).tolist() == [1.0, 1.0, 1.0]
    assert importance_weight(
        torch.zeros(2), torch.tensor([-1e4, 1e4]), 2.0
    ).tolist() == pytest.approx([2.0, math.exp(-20)])


# ---- against TRL ---------------------------------------------------------------------------------


def same_in_value_and_gradient(ours: Tensor, theirs: Tensor, student: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    weight = torch.linspace(0.5, 2.0, ours.numel(), dtype=ours.dtype).view_as(ours)
    gradients = [
        torch.autograd.grad((each * weight).sum(), student, retain_graph=True)[0]
        for each in (ours, theirs)
    ]
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_whole_divergence_is_trls(alpha: float) -> None:
    from trl.experimental.sdpo.loss_utils import compute_full_logit_self_distillation_loss

    student, teacher = random_logits(dtype=torch.float32)
    theirs = compute_full_logit_self_distillation_loss(student, teacher, distillation_alpha=alpha)
    same_in_value_and_gradient(divergence(student, teacher, alpha), theirs, student)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("tail", [True, False])
def test_the_top_k_divergence_is_trls(alpha: float, tail: bool) -> None:
    from trl.experimental.sdpo.loss_utils import compute_topk_self_distillation_loss

    student, teacher = random_logits(1, dtype=torch.float32)
    theirs = compute_topk_self_distillation_loss(
        student, teacher, distillation_topk=4, distillation_alpha=alpha, distillation_add_tail=tail
    )
    same_in_value_and_gradient(divergence(student, teacher, alpha, 4, tail), theirs, student)


def test_the_sampled_token_form_and_its_weight_are_trls() -> None:
    from trl.experimental.sdpo.loss_utils import (
        apply_importance_sampling_clipping,
        compute_sampled_token_self_distillation_loss,
    )

    student, teacher = random_logits(2, dtype=torch.float32)
    ids = torch.randint(11, (2, 3), generator=torch.Generator().manual_seed(3))
    student_logps, teacher_logps = (
        torch.log_softmax(x, -1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        for x in (student, teacher)
    )
    theirs = compute_sampled_token_self_distillation_loss(
        student, teacher, ids, distillation_alpha=1.0
    )
    ours = sampled_divergence(student_logps, teacher_logps)
    same_in_value_and_gradient(ours, theirs, student)
    old = student_logps.detach() - torch.tensor([[0.0, 0.5, 5.0], [-0.5, -30.0, 30.0]])
    weight = importance_weight(student_logps, old, 2.0)
    assert weight.max().item() == 2.0
    same_in_value_and_gradient(
        ours * weight, apply_importance_sampling_clipping(theirs, student_logps, old, 2.0), student
    )
