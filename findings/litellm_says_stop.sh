#!/bin/sh
# Software: litellm 1.108.7.
# Expected: an answer that a provider broke off keeps its finish reason, or at least does not read
#   as a whole one. "abort" is vLLM's and SGLang's word for a request that was aborted. "error" with
#   an `error` in the choice is OpenRouter's shape of an upstream failure amid an answer.
# Seen: `finish_reason` is "stop" for "abort", "error", null and every word that the library does
#   not know (some of them with a warning in the log). The error stands in the choice's
#   `provider_specific_fields` alone, and nothing is raised. "length" and Gemini's "MAX_TOKENS" stay "length". A usage that the provider left out
#   becomes three zeros.
# Exit status: 0 while litellm does so, 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet litellm==1.108.7
cd "$folder"
export LITELLM_LOCAL_MODEL_COST_MAP=True
cat > check.py <<'PY'
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import litellm

ERROR = {"code": 502, "message": "provider down"}


class Provider(BaseHTTPRequestHandler):
    """Answers half a sentence, which ends for the reason that the question names."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        word = asked["messages"][0]["content"]
        choice = {"index": 0, "message": {"role": "assistant", "content": "The sign of"}}
        choice["finish_reason"] = None if word == "null" else word
        if word == "error":
            choice["error"] = ERROR
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        body = json.dumps({**answer, "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


server = HTTPServer(("127.0.0.1", 0), Provider)
Thread(target=server.serve_forever, daemon=True).start()
seen = {}
for word in ("stop", "length", "MAX_TOKENS", "abort", "error", "null", "some_new_word"):
    answer = litellm.completion(
        "openai/m",
        messages=[{"role": "user", "content": word}],
        api_base=f"http://127.0.0.1:{server.server_port}/v1",
        api_key="none",
        num_retries=0,
    )
    [choice] = answer.choices
    seen[word] = choice.finish_reason
    print(f"provider: {word:14} litellm: {choice.finish_reason:7}", choice.provider_specific_fields)
    if word == "error":
        assert choice.message.content == "The sign of"
        assert choice.provider_specific_fields["error"] == ERROR
usage = answer.usage
counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
print("no usage is read as", counts)
assert counts == (0, 0, 0)
assert [seen[word] for word in ("length", "MAX_TOKENS")] == ["length", "length"]
assert {seen[word] for word in ("abort", "error", "null", "some_new_word")} == {"stop"}
PY
"$folder/venv/bin/python" check.py
echo "as seen"
