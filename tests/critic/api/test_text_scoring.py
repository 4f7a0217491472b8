"""Log-probs of a text as servers answer: read token by token, or refused with what is wrong."""

from __future__ import annotations

import json

import pytest

from critique_rl.critic.api.cache import cache_key
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.response import BadResponse
from critique_rl.critic.api.scoring.question import max_usage, request_body
from critique_rl.critic.api.scoring.tokens import ECHO, PROMPT_LOGPROBS, Scoring, parse_scores

IDS = (5, 9, 20)
TEXTS = ("\n", "#", ".")
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
# As vLLM 0.32.0 answered on these tokens of the lab's base, without fields of other uses.
PROMPT = [
    None,
    {"9": {"logprob": -7.30223274230957, "rank": 3, "decoded_token": "#"}},
    {"20": {"logprob": -14.919962882995605, "rank": 69, "decoded_token": "."}},
]
ECHOED = {
    "text_offset": [0, 1, 2, 3],
    "token_logprobs": [None, -7.30223274230957, -14.919962882995605, -0.270198255777359],
    "tokens": ["\n", "#", ".", "k"],
}


def body(**choice) -> bytes:
    usage = choice.pop("usage", USAGE)
    return json.dumps({"model": "lab", "choices": [choice], "usage": usage}).encode()


def scoring(form: str = PROMPT_LOGPROBS, start: int = 1) -> Scoring:
    return Scoring(IDS, start, form, TEXTS)


def read(question: Scoring, **choice) -> list[float]:
    return json.loads(parse_scores(question, body(**choice)).text)


def test_both_forms_are_read_from_the_wanted_place_on() -> None:
    whole = [-7.30223274230957, -14.919962882995605]
    assert read(scoring(), prompt_logprobs=PROMPT) == whole
    assert read(scoring(ECHO), logprobs=ECHOED) == whole
    assert read(scoring(start=2), prompt_logprobs=PROMPT) == whole[1:]
    # vLLM with --return-tokens-as-token-ids
    by_id = {**ECHOED, "tokens": ["token_id:5", "token_id:9", "token_id:20", "token_id:81"]}
    assert read(scoring(ECHO), logprobs=by_id) == whole


def echoed(**changes) -> dict:
    return {"logprobs": {**ECHOED, **changes}}


def prompted(*entries) -> dict:
    return {"prompt_logprobs": [*entries]}


def scored(number: str, logprob, text: str = "#") -> dict:
    return {number: {"logprob": logprob, "decoded_token": text}}


@pytest.mark.parametrize(
    ("form", "choice", "words"),
    [
        (PROMPT_LOGPROBS, {"text": "k"}, "no prompt_logprobs"),
        (PROMPT_LOGPROBS, prompted(None, *PROMPT), r"of 4 tokens, and 3 were sent \(perhaps.*BOS"),
        (PROMPT_LOGPROBS, prompted(scored("5", -1), *PROMPT[1:]), "put another one before it"),
        (PROMPT_LOGPROBS, prompted(*PROMPT[:2], scored("21", -1)), "place 2 is of another token"),
        (PROMPT_LOGPROBS, prompted(None, scored("9", -1, "A"), PROMPT[2]), "holds 'A', and '#'"),
        (PROMPT_LOGPROBS, prompted(None, scored("9", -9999.0), PROMPT[2]), "-9999.0 at place 1"),
        (PROMPT_LOGPROBS, prompted(None, scored("9", 0.5), PROMPT[2]), "0.5 at place 1 is no"),
        (PROMPT_LOGPROBS, prompted(None, scored("9", None), PROMPT[2]), "None at place 1 is no"),
        (
            PROMPT_LOGPROBS,
            prompted(*PROMPT) | {"usage": {**USAGE, "prompt_tokens": 4}},
            "it read 4",
        ),
        (ECHO, {"logprobs": None}, "no logprobs"),
        (ECHO, echoed(tokens=["k"], token_logprobs=[-0.2]), "of what it sampled alone"),
        (ECHO, echoed(tokens=["\n", "A", ".", "k"]), "holds 'A', and '#' was sent"),
        (ECHO, echoed(tokens=["token_id:5", "token_id:8"] * 2), "place 1 holds token_id:8, and 9"),
        (ECHO, echoed(token_logprobs=[None, "-7", -1, -2]), "'-7' at place 1"),
    ],
)
def test_what_is_not_of_the_tokens_sent_is_no_answer(form, choice, words) -> None:
    with pytest.raises(BadResponse, match=words):
        read(scoring(form), **choice)


def test_a_request_asks_for_one_token_and_is_kept_by_all_that_decides_it() -> None:
    endpoint = Endpoint("http://127.0.0.1:1/v1", "lab", temperature=None, prompt_price=2.0)
    assert request_body(endpoint, scoring()) == {
        "model": "lab",
        "prompt": [5, 9, 20],
        "max_tokens": 1,
        "temperature": 1.0,
        "prompt_logprobs": 0,
    }
    most = max_usage(endpoint, scoring())
    assert (most.prompt_tokens, most.completion_tokens, most.usd) == (3, 1, pytest.approx(6e-6))
    questions = [scoring(), scoring(ECHO), scoring(start=2), Scoring((5, 9), 1, ECHO)]
    assert len({cache_key(endpoint, question, 0) for question in questions}) == 4
