"""The sliced divergence against `objective.divergence` on whole logits: values and gradients."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from critique_rl.objective import divergence
from critique_rl.trainer import sliced_divergence as sliced
from critique_rl.trainer.divergence_gradient import Slope
from critique_rl.trainer.sliced_divergence import Divergence, Head, sliced_divergence, sliced_logps

TOKENS, VOCABULARY, HIDDEN = 7, 13, 5
ALPHAS = [0.0, 0.3, 1.0]
SUPPORTS = [(None, True), (4, True), (4, False)]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices as small as a test asks for."""
    monkeypatch.setattr(sliced, "SLICE_TOKENS", 1)


@dataclass
class Case:
    """Student and teacher with a head each, weights that hold a zero, and labels."""

    hidden: Tensor
    head: Head
    teacher_hidden: Tensor
    teacher: Head
    weight: Tensor
    labels: Tensor

    def leaves(self) -> list[Tensor]:
        return [
            leaf
            for leaf in (self.hidden, self.head.weight, self.head.bias)
            if leaf is not None and leaf.requires_grad
        ]

    def sliced(self, measure: Divergence) -> tuple[Tensor, ...]:
        return sliced_divergence(
            self.hidden,
            self.head,
            self.teacher_hidden,
            self.teacher,
            self.weight,
            self.labels,
            measure,
        )

    def unsliced(self, measure: Divergence) -> tuple[Tensor, ...]:
        """The same four from whole logits, written out: project, cap, divide."""
        student = full_logits(self.hidden, self.head, measure.temperature)
        teacher = full_logits(self.teacher_hidden, self.teacher, measure.temperature).detach()
        each = divergence(student, teacher, measure.alpha, measure.top_k, measure.tail)
        picked = (
            torch.log_softmax(logits, -1).gather(-1, self.labels.unsqueeze(-1)).squeeze(-1).detach()
            for logits in (student, teacher)
        )
        return (self.weight * each).sum(), each.detach(), *picked


def full_logits(hidden: Tensor, head: Head, temperature: float) -> Tensor:
    logits = hidden.float() @ head.weight.float().T
    if head.bias is not None:
        logits = logits + head.bias.float()
    logits = head.scale * logits
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits / temperature


def make_case(
    bias: bool = True,
    softcap: float | None = None,
    tokens: int = TOKENS,
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
) -> Case:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    head, teacher = (
        Head(draw(VOCABULARY, HIDDEN), draw(VOCABULARY) if bias else None, softcap, scale)
        for _ in range(2)
    )
    weight = torch.linspace(0.0, 1.5, tokens)  # the first token weighs nothing
    return Case(
        draw(tokens, HIDDEN),
        head,
        draw(tokens, HIDDEN),
        teacher,
        weight,
        torch.arange(tokens) % VOCABULARY,
    )


def assert_same(
    case: Case, measure: Divergence, scale: float = 1.0, atol: float = 2e-6, rtol: float = 2e-5
) -> None:
    ours = case.sliced(measure)
    theirs = case.unsliced(measure)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=atol, rtol=rtol)
    expected = torch.autograd.grad(theirs[0] * scale, case.leaves())
    gradients = torch.autograd.grad(ours[0] * scale, case.leaves())
    for leaf, mine, other in zip(case.leaves(), gradients, expected, strict=True):
        assert mine.dtype == leaf.dtype
        assert other.abs().max() > 1e-2
        torch.testing.assert_close(mine, other, atol=atol, rtol=rtol)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("top_k", "tail"), SUPPORTS)
@pytest.mark.parametrize("tokens_a_block", [1, 2, 100])
@pytest.mark.parametrize("tokens_a_slice", [1, 2, 3, 7, 100])
def test_slices_of_any_size_give_the_whole_divergence_and_its_gradients(
    monkeypatch: pytest.MonkeyPatch,
    alpha: float,
    top_k: int | None,
    tail: bool,
    tokens_a_slice: int,
    tokens_a_block: int,
) -> None:
    monkeypatch.setattr(sliced, "CPU_BLOCK_ELEMENTS", tokens_a_block * VOCABULARY)
    monkeypatch.setattr(sliced, "SLICE_ELEMENTS", tokens_a_slice * VOCABULARY)
    assert_same(make_case(), Divergence(alpha, top_k, tail))


def test_a_slice_is_never_less_than_a_token_nor_more_than_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[int] = []

    class Watched(Divergence):
        def slope(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Slope:
            rows.append(len(student_logits))
            assert student_logits.shape == teacher_logits.shape
            return super().slope(student_logits, teacher_logits, labels)

    for elements, expected in ((1, [1] * 7), (3 * VOCABULARY + 1, [3, 3, 1]), (1 << 22, [7])):
        rows.clear()
        monkeypatch.setattr(sliced, "SLICE_ELEMENTS", elements)
        assert_same(make_case(), Watched(0.3))
        assert rows == expected


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("top_k", "tail"), SUPPORTS)
@pytest.mark.parametrize(
    ("bias", "softcap", "temperature"), [(False, None, 0.7), (True, 1.5, 1.0), (False, 1.5, 2.0)]
)
def test_soft_cap_temperature_and_a_missing_bias_are_those_of_the_model(
    monkeypatch: pytest.MonkeyPatch,
    alpha: float,
    top_k: int | None,
    tail: bool,
    bias: bool,
    softcap: float | None,
    temperature: float,
) -> None:
    monkeypatch.setattr(sliced, "SLICE_ELEMENTS", 2 * VOCABULARY)
    assert_same(make_case(bias, softcap), Divergence(alpha, top_k, tail, temperature))


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize(("top_k", "tail"), SUPPORTS)
def test_logits_are_scaled_before_the_soft_cap(
    monkeypatch: pytest.MonkeyPatch, top_k: int | None, tail: bool, softcap: float | None
) -> None:
    monkeypatch.setattr(sliced, "SLICE_ELEMENTS", 2 * VOCABULARY)
    case = make_case(softcap=softcap, scale=0.25)
    assert_same(case, Divergence(0.3, top_k, tail, 0.7))


def test_a_token_of_weight_zero_gives_no_gradient_but_its_value() -> None:
    case = make_case()
    case.weight[3] = 0.0
    loss, values, *_ = case.sliced(Divergence(0.3))
    (gradient,) = torch.autograd.grad(loss, case.hidden, retain_graph=True)
    assert (gradient.abs().sum(-1) == 0).tolist() == [True, False, False, True, False, False, False]
    assert (values > 0).all()
    case.weight.zero_()
    loss, *_ = case.sliced(Divergence(0.3))
    assert loss.item() == 0.0
    assert all(gradient.abs().max() == 0 for gradient in torch.autograd.grad(loss, case.leaves()))


@pytest.mark.parametrize("scale", [-3.0, 0.25])
def test_what_comes_from_above_scales_every_gradient(scale: float) -> None:
    assert_same(make_case(), Divergence(0.3), scale)


def test_gradients_add_to_those_of_other_terms_through_the_same_leaves() -> None:
    # a head tied to an input embedding, and the hidden states used elsewhere as well
    case = make_case(bias=False)

    def total(divergence_sum: Tensor) -> Tensor:
        return 2.0 * divergence_sum + (case.hidden**2).sum() + case.head.weight[3].sum()

    ours, theirs = (
        torch.autograd.grad(total(f(Divergence(0.3))[0]), case.leaves())
        for f in (case.sliced, case.unsliced)
    )
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=2e-5)


def test_no_gradient_reaches_the_teacher_nor_comes_through_the_values() -> None:
    case = make_case()
    case.weight.requires_grad_()
    loss, *rest = case.sliced(Divergence(0.3))
    assert not any(tensor.requires_grad for tensor in rest)
    loss.backward()
    for tensor in (case.teacher_hidden, case.teacher.weight, case.teacher.bias, case.weight):
        assert tensor.grad is None
    assert all(leaf.grad is not None for leaf in case.leaves())


def test_after_the_backward_pass_the_heads_gradient_stands_in_memory_once() -> None:
    # autograd copies a gradient that something else still holds, and at 150,000 by 2,048 that is
    # 1.2 GB
    case = make_case(bias=False)
    loss, *_ = case.sliced(Divergence(0.3))
    loss.backward()
    of_its_shape = [
        each
        for each in gc.get_objects()
        if type(each) is Tensor and each.shape == case.head.weight.shape
    ]
    known = {tensor.data_ptr() for tensor in (case.head.weight, case.teacher.weight)}
    assert {tensor.data_ptr() for tensor in of_its_shape} - known <= {
        case.head.weight.grad.data_ptr()
    }


def test_a_second_backward_pass_does_not_change_what_the_first_gave() -> None:
    # the trainer's gradient norms by term are a pass of their own
    case = make_case()
    loss, *_ = case.sliced(Divergence(0.3))
    first = torch.autograd.grad(loss, case.leaves(), retain_graph=True)
    kept = [gradient.clone() for gradient in first]
    assert all(
        gradient.abs().max() == 0
        for gradient in torch.autograd.grad(0.0 * loss, case.leaves(), retain_graph=True)
    )
    third = torch.autograd.grad(3.0 * loss, case.leaves())
    torch.testing.assert_close(list(third), [3.0 * gradient for gradient in kept])
    torch.testing.assert_close(list(first), kept)


def test_a_head_that_teaches_itself_gets_the_students_gradient_only() -> None:
    # one weight, one bias for both (no reference model): the teacher's share must not come back
    # through it
    case = make_case()
    case.teacher = case.head
    assert_same(case, Divergence(0.3))


@pytest.mark.parametrize("frozen", ["head", "hidden", "all"])
def test_what_needs_no_gradient_gets_none(frozen: str) -> None:
    case = make_case()
    if frozen in ("head", "all"):
        case.head = case.head.detach()
    if frozen in ("hidden", "all"):
        case.hidden = case.hidden.detach()
    if case.leaves():
        assert_same(case, Divergence(0.3))
    else:
        assert not case.sliced(Divergence(0.3))[0].requires_grad
    with torch.no_grad():
        torch.testing.assert_close(
            case.sliced(Divergence(0.3)), case.unsliced(Divergence(0.3)), atol=2e-6, rtol=2e-5
        )


def test_the_log_probs_are_the_heads_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced, "SLICE_ELEMENTS", 2 * VOCABULARY)
    case = make_case(softcap=1.5)
    student = case.sliced(Divergence(0.3, temperature=0.7))[2]
    teacher = sliced_logps(
        case.teacher_hidden.view(1, TOKENS, -1), case.teacher, case.labels.view(1, TOKENS), 0.7
    )[0]
    for logps, hidden, head in (
        (student, case.hidden, case.head),
        (teacher, case.teacher_hidden, case.teacher),
    ):
        expected = torch.log_softmax(full_logits(hidden, head, 0.7), -1)[
            torch.arange(TOKENS), case.labels
        ]
        torch.testing.assert_close(logps, expected.detach())


def test_bfloat16_is_close_and_keeps_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sliced, "SLICE_ELEMENTS", 2 * VOCABULARY)
    # eight bits of mantissa: half a per cent a product
    assert_same(make_case(dtype=torch.bfloat16), Divergence(0.3), atol=5e-2, rtol=5e-2)


def test_the_weights_gradient_of_many_bfloat16_slices_is_added_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 600 equal tokens, one a slice: added in bfloat16 the sum would stop growing near 256 times one
    # share
    monkeypatch.setattr(sliced, "SLICE_ELEMENTS", 1)
    case = make_case(bias=False, tokens=1, dtype=torch.bfloat16)
    case.weight.fill_(1.0)
    (one,) = torch.autograd.grad(case.sliced(Divergence(0.3))[0], case.head.weight)
    many = Case(
        *(
            case.hidden.expand(600, -1),
            case.head,
            case.teacher_hidden.expand(600, -1),
            case.teacher,
            torch.ones(600),
            case.labels.expand(600),
        )
    )
    (gradient,) = torch.autograd.grad(many.sliced(Divergence(0.3))[0], case.head.weight)
    torch.testing.assert_close(gradient.float(), one.float() * 600, atol=0.5, rtol=2e-2)


def test_no_tokens_at_all_give_zero_and_zero_gradients() -> None:
    case = make_case(tokens=0)
    loss, *rest = case.sliced(Divergence(0.3, 4))
    assert loss.item() == 0.0
    assert [tensor.shape for tensor in rest] == [(0,)] * 3
    loss.backward()
    assert case.hidden.grad.shape == (0, HIDDEN)
    assert case.head.weight.grad.abs().max() == case.head.bias.grad.abs().max() == 0.0
