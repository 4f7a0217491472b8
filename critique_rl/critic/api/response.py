"""One response of a chat server, which may hold anything, read as text and token counts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from critique_rl.critic.api.billing.usage_report import PartialUsage, parse_partial, parse_usage
from critique_rl.critic.api.finish_reasons import finish_kind, reason_word
from critique_rl.critic.thought_marks import names_thoughts
from critique_rl.critic.thoughts import clean_answer
from critique_rl.prompts import LONGEST_TEXT, TOO_LONG
from critique_rl.types import Usage

TEXT_TYPES = ("text", "output_text")
"""Types of the parts of a content that hold the answer."""
THOUGHT_CHANNELS = ("analysis", "commentary")
"""Harmony's channels besides `final`, where a server passes their names on."""
MAX_NAME_LENGTH = 500
MAX_VALUES = 500_000
"""Most JSON values of a body that is parsed. 4 MB of empty lists would take 90 MB as objects."""
JSON_TYPES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    dict: "an object",
    list: "a list",
}
"""Type -> its name for readers."""
READ_KEYS = ("choices", "message", "content", "finish_reason", "model", "usage", "error")
"""Keys that must not have two values: which one is meant cannot be known."""
ERROR_KEYS = ("error", "errors")
"""Where an answer has an error."""
FINISH_KEYS = ("finish_reason", "finishReason", "stop_reason")
"""Where a choice has its finish reason, the best place first."""
WORDS_KEYS = ("message", "detail", "msg", "error", "errors", "error_description", "title")
"""Where servers put what they have to say about an error, the best place first."""
WORDS_IN_JSON = [re.compile(rf'"{key}"\s*:\s*"((?:[^"\\]|\\.)+)', re.DOTALL) for key in WORDS_KEYS]
"""Finds those words in JSON that cannot be parsed."""
CUT_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{0,3}$")
"""An escape of JSON that was not sent to its end."""

Report = Usage | PartialUsage | None
"""What a server reports of an answer's tokens: all counts, some, or none."""


class BadResponse(ValueError):
    """A response without a usable answer.

    Args:
        message: what is wrong with it.
        usage: the tokens it reported, which were billed; None if it reported none.
        code: error code in its body. Some servers send errors with status 200.

    Attributes:
        status_code: the code as an HTTP status from 400 to 599, None if it is none.
    """

    def __init__(self, message: str, usage: Report = None, code: object = None) -> None:
        super().__init__(f"bad response: {message}")
        self.usage = usage
        self.code = code
        self.status_code: int | None = None
        if isinstance(code, int | str) and re.fullmatch(r"[45][0-9]{2}", str(code)):
            self.status_code = int(code)


@dataclass(frozen=True)
class Answer:
    """What a chat completion says."""

    text: str
    """The text without thoughts."""
    finish_reason: str
    """stop, length, content_filter, refusal or tool_call, whatever the server's word for it; "" if
    it gave none; else its word.
    """
    usage: Report
    """The reported usage; None without one that can be read."""
    model: str
    """The model that it names; "" if it names none."""
    refusal: str = ""
    """Why its text was refused (`thoughts.Cleaned.reason`)."""


class OtherModel(BadResponse):
    """An answer of another model than the one asked for, where that is refused.

    Args:
        asked: the model that was asked for.
        answer: the answer.
    """

    def __init__(self, asked: str, answer: Answer) -> None:
        named = "names no model"
        if answer.model:
            named = f"names the model {answer.model!r}"
        super().__init__(f"the answer {named}, not {asked!r}", answer.usage)


def parse_choice(body: bytes) -> tuple[dict[str, Any], dict[str, Any], Report]:
    """Parse the body of a completion, of a chat or of a text.

    Args:
        body: the response as it came.

    Returns:
        The answer, its first choice, and the usage that it reports.

    Raises:
        BadResponse: it holds no choice, or says that it failed.
    """
    answer = parse_json(body)
    if not isinstance(answer, dict):
        answer = {}
    counts = answer.get("usage")
    usage: Report = parse_usage(counts) or parse_partial(counts)
    _refuse_error(answer, usage)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        if error_words(answer):
            raise _error_in_body(answer, usage)
        raise BadResponse("no choices", usage)
    choice = choices[0]
    _refuse_error(choice, usage)
    _refuse_error(_provider_fields(choice), usage)
    return answer, choice, usage


def parse_response(body: bytes) -> Answer:
    """Parse the body of a chat completion.

    Args:
        body: the response as it came.

    Raises:
        BadResponse: it holds no answer.
    """
    answer, choice, usage = parse_choice(body)
    given = _finish_word(choice)
    finish_reason = finish_kind(given)
    message = choice.get("message")
    if message is None and finish_reason in ("content_filter", "length"):
        # Gemini sends no message where it has no text.
        message = {}
    if not isinstance(message, dict):
        raise BadResponse("no message", usage)
    _refuse_error(message, usage)
    text = _read_content(message.get("content"), usage)
    if finish_reason == "broken":
        raise BadResponse(f"the server broke the answer off: {reason_word(given)}", usage)
    if _refuses(message):
        finish_reason = "refusal"
    elif message.get("tool_calls") or message.get("function_call"):
        finish_reason = "tool_call"
    if text and usage is not None and not usage.completion_tokens:
        # Some servers report zeros, and no text takes 0 tokens.
        usage = parse_partial(answer.get("usage"))
    cleaned = clean_answer(_plain_text(text), finish_reason == "length")
    model = model_name(answer)
    return Answer(cleaned.text, finish_reason, usage, model, cleaned.reason)


def parse_json(body: bytes) -> Any:
    """The value of a JSON body.

    Raises:
        BadResponse: it is no JSON, or none that can be read without doubt.
    """
    # Any other body costs its own length at most.
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise BadResponse(f"over {MAX_VALUES:,} values")
    try:
        # "-sig" drops a byte order mark, at which json stops.
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadResponse("no UTF-8") from error
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise BadResponse("nested too deeply") from error
    except BadResponse:
        raise
    except ValueError as error:
        if text.lstrip().startswith(("data:", "event:")):
            raise BadResponse("a stream of events, which was not asked for") from error
        raise BadResponse("no JSON") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. Raises BadResponse for two values of a key that is read."""
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    keys = [key for key, _ in pairs]
    for key in READ_KEYS:
        if keys.count(key) > 1:
            raise BadResponse(f"two values of {key!r}")
    return values


def _read_content(content: Any, usage: Report) -> str:
    """The text of a message's content, "" for none. Raises BadResponse for another type."""
    text = _join_parts(content)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise BadResponse(f"content is {JSON_TYPES[type(text)]}", usage)
    if len(text) > LONGEST_TEXT:
        raise BadResponse(TOO_LONG, usage)
    return text


def _finish_word(choice: dict[str, Any]) -> Any:
    """How a server says that a choice ended."""
    given = next((choice[key] for key in FINISH_KEYS if choice.get(key)), None)
    # LiteLLM makes "stop" of words that it does not know, "abort" and "error" among them.
    native = _provider_fields(choice).get("native_finish_reason")
    if native and finish_kind(given) == "stop":
        return native
    return given


def _provider_fields(choice: dict[str, Any]) -> dict[str, Any]:
    """What LiteLLM keeps of a provider's choice beside what it made of it."""
    fields = choice.get("provider_specific_fields")
    if isinstance(fields, dict):
        return fields
    return {}


def _plain_text(text: str) -> str:
    """The text with U+FFFD for half surrogates, which JSON can spell and UTF-8 cannot."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def model_name(answer: dict[str, Any]) -> str:
    """The model that an answer names; "" if it names none."""
    name = answer.get("model")
    if not isinstance(name, str):
        return ""
    name = _plain_text(name).strip()
    # Not cut: a cut could leave a part of a key that the server quotes.
    return name if len(name) <= MAX_NAME_LENGTH else "a name that is too long"


def _refuses(message: dict[str, Any]) -> bool:
    """Whether the model's own words refuse, in a field or a part that is for that."""
    if message.get("refusal"):
        return True
    content = message.get("content")
    if not isinstance(content, list):
        return False
    return any(isinstance(part, dict) and part.get("type") == "refusal" for part in content)


def _refuse_error(part: dict[str, Any], usage: Report) -> None:
    """Refuse an answer that says that it failed, whatever text it has beside.

    Args:
        part: the answer, its choice or the choice's message. Routers put an error into any of them.
        usage: the tokens that it reported.

    Raises:
        BadResponse: it has an error.
    """
    for key in ERROR_KEYS:
        error = part.get(key)
        # Some servers fill in the field with empty values.
        is_empty = isinstance(error, dict) and not any(error.values())
        if error and not is_empty:
            raise _error_in_body(error, usage)


def _error_in_body(error: Any, usage: Report) -> BadResponse:
    """An error that came with status 200, in the server's words."""
    code = error.get("code") if isinstance(error, dict) else None
    words = [error_words(error)]
    if isinstance(code, int | str) and code:
        words.insert(0, str(code))
    return BadResponse(": ".join(filter(None, words)) or "an error", usage, code)


def error_words(error: Any) -> str:
    """What a server says about an error, from JSON of any shape; "" if it says nothing."""
    provider_words = ""
    # Error of an error, list of errors: no server goes deeper.
    for _ in range(4):
        if isinstance(error, list):
            error = next(iter(error), None)
        if not isinstance(error, Mapping):
            break
        provider_words = provider_words or _provider_words(error)
        error = next((error[key] for key in WORDS_KEYS if error.get(key)), None)
    if isinstance(error, bool) or not isinstance(error, str | int | float):
        return provider_words
    if provider_words:
        return f"{error}: {provider_words}"
    return str(error)


def _provider_words(error: Mapping[str, Any]) -> str:
    """What the provider behind a router said; "" without."""
    # OpenRouter itself says "Provider returned error" only.
    metadata = error.get("metadata")
    if not isinstance(metadata, Mapping):
        return ""
    raw = metadata.get("raw")
    if not isinstance(raw, str):
        return ""
    return words_of_text(raw)


def words_of_text(text: str) -> str:
    """What a server says in a refusal that is no JSON, or JSON that was not sent to its end.

    Args:
        text: the refusal's body.

    Returns:
        The first message in what should be JSON, "" if it has none, with "..." for what did not
        come; other text as it is.
    """
    if not text.lstrip().startswith(("{", "[")):
        return text
    for words in WORDS_IN_JSON:
        match = words.search(text)
        if match is None:
            continue
        message = _unescape(match.group(1))
        if match.end() < len(text):
            return message
        # The last word may be a part of one.
        return f"{message.rpartition(' ')[0] or message} ..."
    return ""


def _unescape(spelled: str) -> str:
    """A text from between the quotes of JSON, which may end within an escape."""
    for text in (spelled, CUT_ESCAPE.sub("", spelled)):
        with suppress(ValueError):
            return str(json.loads(f'"{text}"', strict=False))
    return spelled.replace("\\", "")


def _join_parts(content: Any) -> Any:
    """The text parts of a content in parts, joined; any other content unchanged."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) for part in content):
        return content
    texts = []
    for part in content:
        is_text = part.get("type", "text") in TEXT_TYPES and isinstance(part.get("text"), str)
        if is_text and not _is_thought(part):
            texts.append(part["text"])
    return "".join(texts)


def _is_thought(part: dict[str, Any]) -> bool:
    """Whether a part of a content says that it is a thought.

    Mistral and Anthropic send thoughts as parts of another type, Gemini flags them as `thought`.
    """
    for key, value in part.items():
        if key != "text" and isinstance(value, str) and value in THOUGHT_CHANNELS:
            return True
        if key in ("type", "kind", "channel", "phase", "role") and names_thoughts(str(value)[:100]):
            return True
        # A signature of thoughts is a text; a flag is true.
        if names_thoughts(key[:100]) and (value is True or value == "true"):
            return True
    return False
