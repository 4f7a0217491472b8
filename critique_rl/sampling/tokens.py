"""Prompts as ids, and ids as answers: the same in rollouts, evaluations and critics in process.

Rollouts get their prompts' ids from TRL itself (`trl_seams`); `prompt_ids` gives the same without a
trainer. Left out: images and tools.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import parse_response

from critique_rl.types import Message

Prompt = str | list[Message]
"""A text, or a conversation."""
NO_KWARGS: Mapping[str, Any] = {}

# ---- prompts -------------------------------------------------------------------------------------


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    chat_template_kwargs: Mapping[str, Any] = NO_KWARGS,
) -> list[list[int]]:
    """Ids of each prompt as the policy reads it in TRL's rollouts.

    Args:
        tokenizer: the policy's tokenizer.
        prompts: texts, tokenized with special tokens; conversations, rendered by the template.
        chat_template_kwargs: arguments of the template.
    """
    # Prompts repeat, once per sample.
    known: dict[int, list[int]] = {}
    ids = []
    for prompt in prompts:
        key = id(prompt)
        if key not in known:
            known[key] = _ids_of(tokenizer, prompt, chat_template_kwargs)
        ids.append(known[key])
    return ids


def _ids_of(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, chat_template_kwargs: Mapping[str, Any]
) -> list[int]:
    # Any: the annotations of transformers also allow for tensors and single texts.
    rendered: Any
    if isinstance(prompt, str):
        rendered = tokenizer(text=[prompt])
    else:
        conversation: Any = [prompt]
        rendered = tokenizer.apply_chat_template(
            conversation=conversation,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            **chat_template_kwargs,
        )
    return list(rendered["input_ids"][0])


def prompt_text(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    chat_template_kwargs: Mapping[str, Any] = NO_KWARGS,
) -> str:
    """A prompt as the policy reads it, as text with its special tokens."""
    # `str`: the annotations of transformers also allow for batches.
    if isinstance(prompt, str):
        start = str(tokenizer.decode(tokenizer("")["input_ids"]))
        return start + prompt
    text = tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=False, **chat_template_kwargs
    )
    return str(text)


def prompts_digest(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    chat_template_kwargs: Mapping[str, Any] = NO_KWARGS,
) -> str:
    """A hash of the prompts as the policy reads them, chat template included.

    Two evaluations with different digests asked different questions.
    """
    texts = []
    for prompt in prompts:
        text = prompt_text(tokenizer, prompt, chat_template_kwargs)
        if isinstance(prompt, str):
            ids = _ids_of(tokenizer, prompt, chat_template_kwargs)
            # Some tokenizers read a text otherwise than after the special tokens before it.
            if ids != tokenizer(text, add_special_tokens=False)["input_ids"]:
                text = f"{text}\0{ids}"
        texts.append(text)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


# ---- answers -------------------------------------------------------------------------------------


def until_stop(ids: Sequence[int], stops: Collection[int]) -> list[int]:
    """The ids up to the first stop id, which belongs to the answer; all of them if there is none.

    With pad == eos this also tells the end token from the padding behind it.
    """
    for place, token in enumerate(ids):
        if token in stops:
            return list(ids[: place + 1])
    return list(ids)


def is_truncated(ids: Sequence[int], stops: Collection[int], pad: int | None) -> bool:
    """Whether an answer was cut at its longest length, as TRL's clipped_ratio counts it.

    Args:
        ids: the answer, as `until_stop` gives it.
        stops: ids that end an answer.
        pad: the pad token.
    """
    if not ids:
        return True
    last = ids[-1]
    return last not in stops and last != pad


def completions_of(
    processing_class: Any,
    prompts: Sequence[Any],
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
) -> list[Any]:
    """Answers in the format of their prompts, as TRL hands them to reward functions.

    A tokenizer with a response template has its answers parsed: `content` then holds neither
    thoughts nor tool calls.

    Args:
        processing_class: the policy's tokenizer.
        prompts: texts or conversations.
        prompt_ids: ids of each prompt, which may have opened the answer's thoughts.
        completion_ids: ids of each answer.
    """
    if not prompts:
        return []
    texts = processing_class.batch_decode(completion_ids, skip_special_tokens=True)
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    is_parsed = has_response_template(tokenizer)
    completions: list[Any] = []
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            completions.append(texts[i])
        elif is_parsed:
            prefix = list(prompt_ids[i])
            message = parse_response(tokenizer, list(completion_ids[i]), prefix=prefix, tools=[])
            completions.append([message])
        else:
            completions.append([{"role": "assistant", "content": texts[i]}])
    return completions


def has_response_template(tokenizer: Any) -> bool:
    """Whether TRL parses the answers of this tokenizer's chats."""
    names = ("response_template", "response_schema")
    return any(getattr(tokenizer, name, None) is not None for name in names)


def content_of(completion: Any) -> str:
    """The text of an answer in either format of `completions_of`."""
    if isinstance(completion, str):
        return completion
    # Thoughts or a tool call alone have no content.
    return str(completion[0].get("content") or "")


# ---- answers that nobody sampled -----------------------------------------------------------------


def trace_ids(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    text: str,
    stops: Sequence[int],
    chat_template_kwargs: Mapping[str, Any] = NO_KWARGS,
) -> list[int]:
    """Ids of a written text as an answer to a prompt, with the end token that answers have there.

    Args:
        tokenizer: the policy's tokenizer.
        prompt: what it answers.
        text: the answer.
        stops: ids that end an answer.
        chat_template_kwargs: arguments of the template.
    """
    plain: Any = tokenizer(text, add_special_tokens=False)["input_ids"]
    # Any: transformers annotates these ids as texts too.
    end: Any = tokenizer.eos_token_id
    if isinstance(prompt, str):
        return until_stop([*plain, end], stops)
    before = _ids_of(tokenizer, prompt, chat_template_kwargs)
    conversation: Any = [[*prompt, {"role": "assistant", "content": text}]]
    rendered: Any = tokenizer.apply_chat_template(
        conversation=conversation, tokenize=True, return_dict=True, **chat_template_kwargs
    )
    complete = list(rendered["input_ids"][0])
    ends = [token for token in complete if token in stops]
    # Some templates write no end behind an answer.
    if len(ends) > sum(token in stops for token in before):
        end = ends[-1]
    if complete[: len(before)] == before:
        answer = until_stop(complete[len(before) :], stops)
        # A template may drop thoughts from an answer, or put some in: then the text stays as given.
        if answer[-1:] == [end] and tokenizer.decode(answer, skip_special_tokens=True) == text:
            return answer
    return until_stop([*plain, end], stops)
