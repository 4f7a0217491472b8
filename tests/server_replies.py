"""Replies of ten servers: the JSON that their documentation or their source states, or that they
sent here (docs/servers.md has each source), and what a critic must make of it.

Prices are 1 and 10 dollars per million tokens, so 30 + 12 tokens cost 150 millionths.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

TEXT = "The sign of the second term is wrong."
COUNTS = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
RESERVED = 64
"""max_tokens of the requests."""


@dataclass(frozen=True)
class Shape:
    """One reply, and what becomes of it."""

    name: str
    body: Any
    text: str = TEXT
    reason: str = ""
    """How the reason begins; "" for none."""
    completion: int = 12
    usd: float = 150.0
    """In millionths."""
    model: str = "m"
    """The model that the reply names."""
    estimated: bool = False
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def answer(
    message: dict[str, Any] | None,
    finish: str | None = "stop",
    usage: Any = COUNTS,
    model: str = "m",
    **beside: Any,
) -> dict[str, Any]:
    """A completion; `beside` are further keys of its choice."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, **beside}
    if message is not None:
        choice["message"] = {"role": "assistant", **message}
    completion = {"id": "1", "object": "chat.completion", "created": 1, "model": model}
    return {**completion, "choices": [choice], "usage": usage}


def refused(name: str, body: Any, status: int, reason: str, **headers: str) -> Shape:
    """A refusal by status, which costs nothing; `headers` spell "-" as "_"."""
    spelled = {key.replace("_", "-"): value for key, value in headers.items()}
    # LiteLLM puts this before the headers of a provider.
    spelled = {key.replace("llm-provider", "llm_provider"): spelled[key] for key in spelled}
    return Shape(
        name, body, "", reason, completion=0, usd=0.0, model="", status=status, headers=spelled
    )


def failed(name: str, body: Any, reason: str, **expected: Any) -> Shape:
    """An answer that is billed and is no critique."""
    return Shape(name, body, "", reason, **expected)


VLLM = [
    Shape(
        "whole",
        answer(
            {"content": TEXT, "refusal": None, "tool_calls": [], "reasoning": None},
            usage={**COUNTS, "prompt_tokens_details": None},
            stop_reason=None,
            token_ids=None,
        ),
    ),
    Shape("thoughts", answer({"content": TEXT, "reasoning": "The sign?"}, stop_reason=151645)),
    Shape("old name of thoughts", answer({"content": TEXT, "reasoning_content": "The sign?"})),
    Shape("no parser", answer({"content": f"The sign?</think>\n\n{TEXT}"})),
    Shape("cut", answer({"content": "The sign of"}, "length"), "The sign of", "length"),
    failed("cut in thoughts", answer({"content": None, "reasoning": "The"}, "length"), "length"),
    failed(
        "aborted",
        answer({"content": "The sign"}, "abort"),
        "bad response: the server broke the answer off: abort",
    ),
    refused(
        "too long",
        {
            "error": {
                "message": "This model's maximum context length is 4096 tokens. However, your "
                "request has 5000 input tokens.",
                "type": "BadRequestError",
                "param": "input_tokens",
                "code": 400,
            }
        },
        400,
        "prompt_too_long: This model's",
    ),
    refused(
        "no such model",
        {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError"}},
        404,
        "http 404: The model",
    ),
]
SGLANG = [
    Shape(
        "thoughts",
        answer(
            {"content": TEXT, "reasoning_content": "The sign?", "tool_calls": None},
            usage={**COUNTS, "prompt_tokens_details": None, "reasoning_tokens": 8},
            matched_stop=151645,
        ),
    ),
    Shape(
        "cached prompt",
        answer({"content": TEXT}, usage={**COUNTS, "prompt_tokens_details": {"cached_tokens": 20}}),
        # (10 * 1 + 20 * .5 + 12 * 10) / 10^6
        usd=140.0,
    ),
    Shape("marks of Kimi", answer({"content": f"◁think▷The sign?◁/think▷{TEXT}"})),
    refused(
        "too long",
        {
            "object": "error",
            "message": "The input (5000 tokens) is longer than the model's context length (4096).",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        400,
        "prompt_too_long: The input",
    ),
]
OLLAMA = [
    Shape(
        "thoughts",
        answer({"content": TEXT, "reasoning": "The sign?"}, model="qwen3:8b"),
        model="qwen3:8b",
    ),
    Shape(
        "no counts of a cached prompt",
        answer({"content": TEXT}, usage={**COUNTS, "prompt_tokens": 0, "total_tokens": 12}),
        estimated=True,
    ),
    Shape("no finish reason", answer({"content": TEXT}, None), reason="finish_missing"),
    refused(
        "no such model",
        {"error": {"message": "model 'x' not found", "type": "not_found_error", "code": None}},
        404,
        "http 404: model 'x' not found",
    ),
    refused("error as a text", {"error": "invalid message format"}, 400, "http 400: invalid"),
]
LLAMA_CPP = [
    Shape(
        "run here: whole",
        {
            **answer(
                {"content": TEXT}, usage={**COUNTS, "prompt_tokens_details": {"cached_tokens": 0}}
            ),
            "system_fingerprint": "b0-unknown",
            "timings": {"cache_n": 0, "prompt_n": 30, "predicted_n": 12},
        },
    ),
    Shape("run here: whole and at its bound", answer({"content": TEXT}, "length"), TEXT, "length"),
    refused(
        "run here: too long",
        {
            "error": {
                "code": 400,
                "message": "request (2031 tokens) exceeds the available context size (512 "
                "tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 2031,
                "n_ctx": 512,
            }
        },
        400,
        "prompt_too_long: request",
    ),
    refused(
        "loading",
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        503,
        "http 503: Loading model",
    ),
]
TRANSFORMERS_SERVE = [
    Shape(
        "run here: another name",
        answer({"content": TEXT}, model="critic@main"),
        model="critic@main",
    ),
    refused(
        "run here: unknown setting",
        {"detail": "Unexpected fields in the request: {'top_k'}"},
        422,
        "http 422: Unexpected fields",
    ),
    refused(
        "run here: no such model",
        {"detail": "Server is pinned to 'critic'; requested 'm'."},
        400,
        "http 400: Server is pinned",
    ),
]
NO_FIELDS: dict[str, Any] = {"provider_specific_fields": {}}
LITELLM = [
    Shape("run here: whole", answer({"content": TEXT}, **NO_FIELDS)),
    Shape(
        "run here: the provider sent no usage",
        answer(
            {"content": TEXT},
            usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            **NO_FIELDS,
        ),
        completion=RESERVED,
        estimated=True,
    ),
    failed(
        "run here: the provider aborted",
        answer({"content": "The"}, provider_specific_fields={"native_finish_reason": "abort"}),
        "bad response: the server broke the answer off: abort",
    ),
    Shape(
        "run here: the provider cut",
        answer({"content": "The"}, provider_specific_fields={"native_finish_reason": "truncated"}),
        "The",
        "length",
    ),
    failed(
        "run here: the provider failed",
        answer(
            {"content": "The"},
            provider_specific_fields={
                "error": {"code": 502, "message": "provider down"},
                "native_finish_reason": "error",
            },
        ),
        "bad response: 502: provider down",
    ),
    Shape(
        "run here: Anthropic's thoughts with signature",
        answer(
            {
                "content": TEXT,
                "reasoning_content": "The sign?",
                "thinking_blocks": [{"type": "thinking", "thinking": "The", "signature": "c2ln"}],
            },
            usage={**COUNTS, "completion_tokens_details": {"reasoning_tokens": 8}},
        ),
    ),
    failed(
        "run here: Gemini's filter",
        answer({"content": None}, "content_filter", usage={**COUNTS, "total_tokens": 142}),
        "content_filter",
        # The total has 100 tokens of thoughts that the completion lacks.
        completion=112,
        usd=1150.0,
    ),
    refused(
        "run here: setting that Anthropic lacks",
        {
            "error": {
                "message": "litellm.UnsupportedParamsError: anthropic does not support "
                "parameters: ['seed'], for model=claude-sonnet-4-20250514.",
                "type": "invalid_request_error",
                "param": None,
                "code": "400",
            }
        },
        400,
        "http 400: set seed: null: litellm.Unsupported",
    ),
    refused(
        "run here: temperature of a reasoning model",
        {
            "error": {
                "message": "litellm.UnsupportedParamsError: gpt-5 doesn't support temperature=0 "
                "while reasoning is active.",
                "type": "invalid_request_error",
                "param": None,
                "code": "400",
            }
        },
        400,
        "http 400: set temperature: null: litellm",
    ),
    refused(
        "run here: rate limit",
        {
            "error": {
                "message": "litellm.RateLimitError: RateLimitError: OpenAIException - slow down",
                "type": "throttling_error",
                "code": "429",
            }
        },
        429,
        "http 429: litellm.RateLimitError",
        llm_provider_retry_after="1",
    ),
]
OPENROUTER = [
    Shape(
        "cost",
        answer(
            {
                "content": TEXT,
                "reasoning": "The sign?",
                "refusal": None,
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "The sign?", "signature": "c2ln", "index": 0}
                ],
            },
            usage={
                **COUNTS,
                "cost": 0.00095,
                "is_byok": False,
                "cost_details": {"upstream_inference_cost": None},
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 8},
            },
            model="vendor/model",
            native_finish_reason="end_turn",
        ),
        usd=950.0,
        model="vendor/model",
    ),
    Shape(
        "cost under the prices",
        answer({"content": TEXT}, usage={**COUNTS, "cost": 1e-5, "is_byok": True}),
    ),
    failed(
        "error of a choice",
        answer(
            {"content": "The sign"},
            "error",
            error={"code": 502, "message": "Upstream disconnected"},
            native_finish_reason=None,
        ),
        "bad response: 502: Upstream disconnected",
    ),
    failed(
        "error with status 200",
        {
            "error": {
                "code": 400,
                "message": "Provider returned error",
                "metadata": {
                    "raw": '{"error": {"message": "this field is not for this model"}}',
                    "provider_name": "Vendor",
                },
            },
            "user_id": "u",
        },
        "bad response: 400: Provider returned error: this field",
        completion=0,
        usd=0.0,
        model="",
    ),
    refused(
        "moderation",
        {
            "error": {
                "code": 403,
                "message": "Your chosen model requires moderation and your input was flagged",
                "metadata": {
                    "reasons": ["violence"],
                    "flagged_input": "...",
                    "provider_name": "Vendor",
                    "model_slug": "vendor/model",
                },
            }
        },
        403,
        "http 403: Your chosen model",
    ),
    refused(
        "no credit",
        {"error": {"code": 402, "message": "Insufficient credits. Add more."}},
        402,
        "http 402: Insufficient",
    ),
]
AZURE = [
    Shape(
        "thoughts in the completion",
        {
            **answer(
                {"content": TEXT, "annotations": [], "refusal": None},
                usage={
                    **COUNTS,
                    "completion_tokens_details": {"reasoning_tokens": 8},
                    "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 20},
                },
                model="gpt-5-2025-08-07",
                content_filter_results={"hate": {"filtered": False, "severity": "safe"}},
            ),
            "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
        },
        usd=140.0,
        model="gpt-5-2025-08-07",
    ),
    failed(
        "filtered answer",
        answer({}, "content_filter", content_filter_results={"hate": {"filtered": True}}),
        "content_filter",
    ),
    failed("thoughts alone", answer({"content": ""}, "length"), "length"),
    Shape(
        "filtered prompt",
        {
            "error": {
                "message": "The response was filtered",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        "",
        "http 400: The response was filtered",
        status=400,
        # Azure bills the prompt and does not say how much: nothing is counted in the metrics, and
        # the reservation stays spent in the ledger.
        completion=0,
        usd=0.0,
        model="",
    ),
    refused(
        "max_tokens of a reasoning model",
        {
            "error": {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                "type": "invalid_request_error",
                "param": "max_tokens",
                "code": "unsupported_parameter",
            }
        },
        400,
        "http 400: set max_tokens: null and extra_body: {max_completion_tokens: ...}: Unsupported",
    ),
    refused(
        "temperature of a reasoning model",
        {
            "error": {
                "message": "Unsupported value: 'temperature' does not support 0.7 with this "
                "model. Only the default (1) value is supported.",
                "type": "invalid_request_error",
                "param": "temperature",
                "code": "unsupported_value",
            }
        },
        400,
        "http 400: set temperature: null: Unsupported",
    ),
    refused(
        "rate limit",
        {"error": {"code": "429", "message": "Requests have exceeded token rate limit."}},
        429,
        "http 429: Requests",
        retry_after="1",
        retry_after_ms="900",
        x_ratelimit_remaining_requests="0",
    ),
]
ANTHROPIC = [
    Shape("whole", answer({"content": TEXT, "refusal": None}, model="claude-x"), model="claude-x"),
    Shape("cut", answer({"content": "The sign"}, "length"), "The sign", "length"),
    refused(
        "temperature of a new model",
        {
            "error": {
                "code": "invalid_request_error",
                "message": "`temperature` is deprecated for this model.",
                "type": "invalid_request_error",
                "param": None,
            }
        },
        400,
        "http 400: set temperature: null: `temperature`",
    ),
    refused(
        "overloaded",
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        529,
        "http 529: Overloaded",
    ),
]
GEMINI = [
    Shape(
        "thoughts outside of the completion",
        answer(
            {
                "content": f"<thought>The sign?</thought>{TEXT}",
                "extra_content": {"google": {"thought_signature": "c2ln"}},
            },
            usage={**COUNTS, "total_tokens": 142},
            model="gemini-x",
        ),
        # (30 * 1 + 112 * 10) / 10^6
        completion=112,
        usd=1150.0,
        model="gemini-x",
    ),
    failed("no message", answer(None, "content_filter: PROHIBITED_CONTENT"), "content_filter"),
    failed("thoughts alone", answer({}, "length"), "length"),
    refused(
        "a list of errors",
        [
            {
                "error": {
                    "code": 400,
                    "message": "API key not valid. Please pass a valid API key.",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"reason": "API_KEY_INVALID"}],
                }
            }
        ],
        400,
        "http 400: API key not valid.",
    ),
    refused(
        "rate limit",
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [
                        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}
                    ],
                }
            }
        ],
        429,
        "http 429: You exceeded",
    ),
]
SHAPES = {
    "vLLM": VLLM,
    "SGLang": SGLANG,
    "Ollama": OLLAMA,
    "llama.cpp": LLAMA_CPP,
    "transformers serve": TRANSFORMERS_SERVE,
    "LiteLLM": LITELLM,
    "OpenRouter": OPENROUTER,
    "Azure OpenAI": AZURE,
    "Anthropic": ANTHROPIC,
    "Gemini": GEMINI,
}
"""Server, as a heading of docs/servers.md -> its replies."""
