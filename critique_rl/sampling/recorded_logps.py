"""Log-probs of tokens, taken while `generate` samples them: no forward pass has to read them again.

Left out: samplers that do not call the model once per token and row (vLLM, continuous batching,
beams, a prompt read in chunks, guidance, assistants). Of those nothing is recorded. The tokens that
passes read are held against those that came out, so that a sampler nobody thought of is seen too.

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

    def __init__(self, temperature: float, number: int):
        """Nothing is recorded yet.

        Args:
            temperature: logits are divided by it, as in training.
            number: R, the prompts of the call.
        """
        self.temperature = temperature
        self.number = number
        self._is_plain = True
        """Whether each pass so far read tokens of all rows, and of nothing else."""
        self._columns: list[Tensor] = []
        """(R,) of every token that a later pass has read."""
        self._tokens: list[Tensor] = []
        """(R,) those tokens."""
        self._last_RV: Tensor | None = None
        """Log-probs that the newest pass gave the token after it."""

    def see(self, module: nn.Module, args: Any, inputs: dict[str, Any], output: Any) -> None:
        """Forward hook: take the log-probs (R,) of the tokens that this pass reads."""
        ids_RT = inputs.get("input_ids")
        # Beams have more rows than prompts; a pass of guidance names its tokens otherwise.
        if not self._is_plain or ids_RT is None or len(ids_RT) != self.number:
            self._is_plain = False
            return
        if self._last_RV is not None:
            token_R1 = ids_RT[:, -1:]
            logps_R1 = self._last_RV.gather(1, token_R1)
            self._columns.append(logps_R1.squeeze(1))
            self._tokens.append(token_R1.squeeze(1))
        logits_RV = output.logits[:, -1].float() / self.temperature
        self._last_RV = torch.log_softmax(logits_RV, -1)

    def rows(self, completion_ids: Sequence[Sequence[int]]) -> list[list[float]] | None:
        """Log-probs of each completion's tokens; None where they were not recorded.

        Args:
            completion_ids: token ids of the call's first rows, without padding.
        """
        if self._last_RV is None or not self._is_plain:
            return None
        # (tokens, R): a single token has no pass that reads it.
        columns: list[list[float]] = [column.tolist() for column in self._columns]
        tokens: list[list[int]] = [token.tolist() for token in self._tokens]
        rows = []
        for row, ids in enumerate(completion_ids):
            read = [column[row] for column in tokens[: len(ids)]]
            # No pass has to read the last token.
            if len(read) < len(ids) - 1 or read != list(ids[: len(read)]):
                return None
            logps = [column[row] for column in columns[: len(ids)]]
            if len(logps) < len(ids):
                # No pass has read the last token.
                last = self._last_RV[row, ids[-1]]
                logps.append(last.item())
            rows.append(logps)
        return rows


@contextmanager
def recorded_logps(model: nn.Module, temperature: float, number: int) -> Iterator[RecordedLogps]:
    """Within the block log-probs of one call of `generate` are recorded.

    Args:
        model: the policy that samples, without the wrappers of DDP.
        temperature: logits are divided by it, as in training.
        number: prompts of the call.
    """
    record = RecordedLogps(temperature, number)
    handle = causal_model(model).register_forward_hook(record.see, with_kwargs=True)
    try:
        yield record
    finally:
        handle.remove()
