"""Log-probs of tokens, taken while `generate` samples them: no forward pass has to read them again.

Left out: samplers that do not call the model once per token (vLLM, continuous batching). Of those
nothing is recorded.

Axes: R rows of one call of `generate`, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from critique_rl.sampling.attention import causal_model


class RecordedLogps:
    """Log-probs of one call of `generate`, from the logits of its forward passes."""

    def __init__(self, temperature: float):
        self.temperature = temperature
        self._columns: list[Tensor] = []
        """(R,) of every token that a later pass has read."""
        self._last_RV: Tensor | None = None
        """Log-probs that the newest pass gave the token after it."""

    def see(self, module: nn.Module, args: Any, inputs: dict[str, Any], output: Any) -> None:
        """Forward hook: take the log-probs (R,) of the tokens that this pass reads."""
        if self._last_RV is not None:
            token_R1 = inputs["input_ids"][:, -1:]
            logps_R1 = self._last_RV.gather(1, token_R1)
            self._columns.append(logps_R1.squeeze(1))
        logits_RV = output.logits[:, -1].float() / self.temperature
        self._last_RV = torch.log_softmax(logits_RV, -1)

    def rows(self, completion_ids: Sequence[Sequence[int]]) -> list[list[float]] | None:
        """Log-probs of each completion's tokens; None where nothing was recorded.

        Args:
            completion_ids: token ids of the call's first rows, without padding.
        """
        if self._last_RV is None:
            return None
        # (tokens, R): a single token has no pass that reads it.
        columns: list[list[float]] = [column.tolist() for column in self._columns]
        rows = []
        for row, ids in enumerate(completion_ids):
            logps = [column[row] for column in columns[: len(ids)]]
            if len(logps) < len(ids):
                # No pass has read the last token.
                last = self._last_RV[row, ids[-1]]
                logps.append(last.item())
            assert len(logps) == len(ids), "a pass per token"
            rows.append(logps)
        return rows


@contextmanager
def recorded_logps(model: nn.Module, temperature: float) -> Iterator[RecordedLogps]:
    """Within the block log-probs of one call of `generate` are recorded.

    Args:
        model: the policy that samples, without the wrappers of DDP.
        temperature: logits are divided by it, as in training.
    """
    record = RecordedLogps(temperature)
    handle = causal_model(model).register_forward_hook(record.see, with_kwargs=True)
    try:
        yield record
    finally:
        handle.remove()
