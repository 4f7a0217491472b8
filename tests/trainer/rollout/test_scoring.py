"""Scoring of a batch: the tokens of a wrong result."""

from __future__ import annotations

import torch

from critique_rl.config.schema import TaskConfig
from critique_rl.tasks.load import load_task
from critique_rl.trainer.rollout.scoring import fault_mask
from critique_rl.types import Verdict


def test_the_fault_mask_holds_the_tokens_of_the_wrong_result_alone(tiny_policy) -> None:
    from critique_rl.lab.base import build_tokenizer

    tokenizer = build_tokenizer()
    text = "A-7=4\nB+9=13\n#13"
    ids = torch.tensor([[*tokenizer(text)["input_ids"], 1], [0] * 17])
    verdict = load_task(TaskConfig("lab/chain", {"no-trap": 1}, 1), 0).verifier(
        text, {"question": "3 A-7 B+9", "answer": "5"}
    )
    mask = fault_mask(tokenizer, ids, [verdict, Verdict("right")])
    # A-7= are characters 0 to 3; the second line follows from the first, and so is not at fault
    assert [tokenizer.decode(token) for token in ids[mask]] == ["4"]
    assert mask.nonzero().tolist() == [[0, 4]]
