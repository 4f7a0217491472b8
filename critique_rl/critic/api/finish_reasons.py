"""The finish reason of an answer, read as one of a few kinds.

Servers have their own words for it, and proxies spell them in their own ways: MAX_TOKENS,
maxTokens, FinishReason.MAX_TOKENS, "max tokens reached". Only the letters count. A word that no
list has is of the kind of a part that it holds, such as "truncat" or "filter".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

WORDS = {
    "stop": """stop stopped stopsequence stopword stopwords stoptoken stoptokens stopstring
        endturn endofturn eos eostoken endofsequence endoftext endofmessage endoftoken
        matchedstop matchedtoken matchedstr complete completed completion done finish finished
        end ended normal natural success succeeded ok""",
    "": "null none",
    "length": """length maxtokens modellength maxlength maxoutput tokenlimit lengthlimit incomplete
        limit partial contextlength maxcontext modelcontextwindowexceeded""",
    "content_filter": """contentfilter contentfiltered safety recitation blocklist blocked spii
        prohibitedcontent sensitive language imagesafety guardrailintervened errortoxic moderation
        contentpolicyviolation""",
    "refusal": "refusal refuse refused modelrefusal declined decline",
    "tool_call": """toolcalls toolcall tooluse tools tool functioncall functioncalls function
        malformedfunctioncall unexpectedtoolcall""",
    "broken": """error servererror internalerror networkerror abort aborted cancel cancelled
        canceled interrupted preempted timeout timelimit insufficientsystemresource pauseturn other
        failed failure finishreasonunspecified""",
}
"""Kind -> its words ("": they say nothing), as their letters alone: those of OpenAI, Gemini,
Anthropic, Mistral, Cohere, Bedrock, DeepSeek, Zhipu, vLLM, SGLang, TGI, the Responses interface.

stop is a whole answer, length one that met its bound. content_filter: a filter ended it, and its
text may stop anywhere. tool_call: its text leads up to a call. broken: the server broke it off, and
another request may be answered to its end.
"""
PARTS = {
    "content_filter": """filter safety unsafe moderat guardrail blocked blocklist policy prohibit
        recitation toxic sensitive censor flagged harmful violation copyright jailbreak""",
    "tool_call": "toolcall tooluse usetool functioncall callfunction calltool",
    "length": """truncat maxtoken maxoutput maxnewtoken maxcompletion maxlength lengthlimit
        lengthexceed lengthreach tokenlimit tokenslimit tokenbudget outputlimit limitreached
        outoftoken toolong contextwindow contextlength contextlimit incomplete cutoff cutshort
        length budgetexceeded overflow""",
    "refusal": "refus declin",
    "broken": """error abort cancel interrupt preempt timeout timelimit overload network disconnect
        internal unavailable insufficient failed failure crash shutdown evict killed ratelimit
        maxtime""",
    "stop": "stopsequence stopword stoptoken stopstring stopeos eostoken endoftext endofturn",
}
"""Kind -> parts of words. The first kind with a part that a reason holds is its kind."""
KINDS = {word: kind for kind, words in WORDS.items() for word in words.split()}
PARTS_OF_KINDS = {kind: tuple(parts.split()) for kind, parts in PARTS.items()}
NESTED_KEYS = ("type", "reason", "name", "value", "finish_reason")
"""Where a proxy puts the word of an enumeration's member that it sends as an object."""
LONGEST = 40
"""Characters of a word of no known kind that are kept."""
LONGEST_READ = 200


def finish_kind(reason: Any) -> str:
    """The kind of a finish reason: a key of `WORDS`; "" for none; else the server's own word."""
    word = reason_word(reason)
    if reason is None or reason in ("", [], {}):
        return ""
    letters = re.sub("[^a-z]", "", word.lower())
    if letters in KINDS:
        return KINDS[letters]
    for kind, parts in PARTS_OF_KINDS.items():
        if any(part in letters for part in parts):
            return kind
    if 0 < len(word) <= LONGEST:
        return word
    return "unreadable"


def reason_word(reason: Any) -> str:
    """The word of a finish reason; "" if it has none that can be read."""
    if isinstance(reason, Mapping):
        reason = next((reason[key] for key in NESTED_KEYS if reason.get(key)), None)
    # Not cut: a cut could leave a part of a key that the server quotes.
    if not isinstance(reason, str) or len(reason) > LONGEST_READ:
        return ""
    # Wide letters are letters.
    word = unicodedata.normalize("NFKC", reason)
    # Proxies spell an enumeration's member with its class: "FinishReason.MAX_TOKENS".
    return word.rstrip(".").rpartition(".")[2].strip()
