"""What `distill_teacher` says: weights of the policy by a name, another model, or a server.

live, ema, base            the policy's own weights (`teacher`)
{model: FOLDER, ...}       another model in this process (`other_model`)
{base_url: ..., ...}       a server that gives log-probs of a text (`served`)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from critique_rl.config.checks import ConfigError, check_keys, read_mapping, read_section, suggest
from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.api.scoring.tokens import RESERVED_KEYS
from critique_rl.critic.chat import DTYPES

OWN = ("live", "ema", "base")
"""Names of the policy's own weights."""
KEY = "distill_teacher"
UNUSED = {"temperature": None, "top_p": None, "max_tokens": 1, "length_retry_factor": 1.0}
"""Options of an endpoint that only sampling has -> what they are for a teacher."""
SERVED_OPTIONS = tuple(item.name for item in fields(Endpoint) if item.name not in (*UNUSED, "seed"))


@dataclass(frozen=True)
class TeacherModel:
    """Another model in this process as teacher, with the policy's tokenizer. It is frozen, and each
    rank holds a copy.
    """

    model: str
    """A folder, a Hub id, or a name that `policy.model` takes."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id; null: its main branch."""
    dtype: str = "float32"
    """float32, bfloat16 or float16."""

    def __post_init__(self) -> None:
        """Raises ValueError for another dtype."""
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: got {self.dtype!r}, expected one of {', '.join(DTYPES)}")


def read_teacher(value: Any) -> str | TeacherModel | Endpoint:
    """Read and check the value of `distill_teacher`.

    Returns:
        A name of `OWN`, a model, or the server's endpoint.

    Raises:
        ConfigError: it is none of these, or holds what cannot be used.
    """
    if isinstance(value, TeacherModel | Endpoint):
        return value
    if isinstance(value, Mapping):
        if "base_url" in value:
            return _read_endpoint(read_mapping(value, KEY))
        return read_section(TeacherModel, value, KEY)
    if value not in OWN:
        raise ConfigError(
            f"{KEY}: got {value!r}; {suggest(str(value), OWN)}, {{model: FOLDER_OR_HUB_ID}}, "
            "{base_url: ..., model: ...}"
        )
    return str(value)


def describe_teacher(value: Any) -> str:
    """The teacher in a few words, without the address of a server."""
    teacher = read_teacher(value)
    if isinstance(teacher, TeacherModel):
        return f"{teacher.model} as"
    if isinstance(teacher, Endpoint):
        return f"{teacher.model} behind a server as"
    return teacher


def _read_endpoint(value: dict[str, Any]) -> Endpoint:
    """The endpoint of a served teacher. Raises ConfigError for options that it cannot have."""
    if value.get("temperature", 1) != 1:
        raise ConfigError(
            f"{KEY}.temperature: got {value['temperature']!r}; servers give log-probs of a text at "
            "temperature 1 alone. Leave it out"
        )
    options = {key: item for key, item in value.items() if key != "temperature"}
    check_keys(options, SERVED_OPTIONS, KEY)
    if "caps" in options:
        options["caps"] = read_section(Caps, options["caps"], f"{KEY}.caps")
    reserved = sorted(set(options.get("extra_body") or ()) & set(RESERVED_KEYS))
    if reserved:
        raise ConfigError(
            f"{KEY}.extra_body: got {reserved[0]!r}, which the client sets itself; leave it out"
        )
    return read_section(Endpoint, {**options, **UNUSED}, KEY)
