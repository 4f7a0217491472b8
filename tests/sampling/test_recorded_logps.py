"""Log-probs recorded while a model samples are those of a forward pass over what it sampled."""

from __future__ import annotations

import pytest
import tiny_models
import torch

from critique_rl.sampling.recorded_logps import RecordedLogps, recorded_logps

END, PADDING = 1, 0
PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]


def sample(model, longest: int, **settings) -> tuple[torch.Tensor, torch.Tensor, list[list[int]]]:
    """(padded prompts, their attention, completions up to their end)."""
    width = max(len(prompt) for prompt in PROMPTS)
    ids = torch.tensor([[PADDING] * (width - len(prompt)) + prompt for prompt in PROMPTS])
    attention = (ids != PADDING).long()
    written = model.generate(
        input_ids=ids,
        attention_mask=attention,
        max_new_tokens=longest,
        **{"do_sample": True, "top_k": 0, "eos_token_id": END, "pad_token_id": PADDING, **settings},
    )
    completions = []
    for row in written[:, width:].tolist():
        length = row.index(END) + 1 if END in row else len(row)
        completions.append(row[:length])
    return ids, attention, completions


def passed(model, prompt: list[int], completion: list[int], temperature: float) -> list[float]:
    """Log-probs of one completion from one pass over it, without padding."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0] / temperature
    logps = torch.log_softmax(logits.float(), -1)
    start = len(prompt) - 1
    return [logps[start + i, token].item() for i, token in enumerate(completion)]


@pytest.mark.parametrize("make", [tiny_models.llama, tiny_models.gpt2, tiny_models.windowed])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("use_cache", [True, False])
def test_recorded_log_probs_are_those_of_a_pass(make, temperature: float, use_cache: bool) -> None:
    torch.manual_seed(0)
    model = make().eval()
    lengths = set()
    for longest in (1, 2, 30):
        with recorded_logps(model, temperature, 3) as record:
            *_, completions = sample(model, longest, temperature=temperature, use_cache=use_cache)
        rows = record.rows(completions)
        assert rows is not None
        for prompt, completion, logps in zip(PROMPTS, completions, rows, strict=True):
            lengths.add(len(completion))
            expected = passed(model, prompt, completion, temperature)
            assert logps == pytest.approx(expected, abs=2e-5)
        assert record.rows(completions[:1]) == rows[:1]
    assert len(lengths) > 2, "rows that all end together prove less"


def test_after_the_block_nothing_is_recorded() -> None:
    model = tiny_models.llama().eval()
    with recorded_logps(model, 1.0, 3) as record:
        assert record.rows([]) is None
    sample(model, 3)
    assert record.rows([[5]]) is None


def test_a_sampler_that_calls_no_model_leaves_nothing() -> None:
    assert RecordedLogps(1.0, 1).rows([[5, 6]]) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3},
        {"num_beams": 2, "do_sample": False},
        {"prefill_chunk_size": 2},
        {"guidance_scale": 1.5},
        {"num_return_sequences": 2},
    ],
    ids="-".join,
)
def test_a_sampler_that_reads_other_tokens_or_rows_leaves_nothing(settings) -> None:
    torch.manual_seed(0)
    model = tiny_models.llama().eval()
    with recorded_logps(model, 1.0, 3) as record:
        *_, completions = sample(model, 12, **settings)
    assert record.rows(completions[:3]) is None


def test_the_tokens_that_were_read_are_those_that_came_out() -> None:
    torch.manual_seed(0)
    model = tiny_models.llama().eval()
    with recorded_logps(model, 1.0, 3) as record:
        *_, completions = sample(model, 12)
    assert record.rows(completions) is not None
    longest = max(completions, key=len)
    place = completions.index(longest)
    # The last token is one that no pass reads.
    longest[-2] += 1
    assert record.rows([*[[], [], []][:place], longest]) is None
    assert record.rows([[*completions[0], 5, 5]]) is None
