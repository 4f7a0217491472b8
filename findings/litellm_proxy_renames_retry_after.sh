#!/bin/sh
# Software: litellm[proxy] 1.108.7.
# Expected: a provider's 429 reaches the caller of the proxy with its `Retry-After`, which clients
#   such as OpenAI's obey, and a used-up quota with its code `insufficient_quota`.
# Seen: the header comes as `llm_provider-retry-after` and there is no `retry-after`; the code of
#   both refusals is "429", so nobody can tell a busy account from an empty one. The proxy does pass
#   `x-ratelimit-remaining-requests` on under its name.
# Exit status: 0 while the proxy does so, 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "litellm[proxy]==1.108.7"
cd "$folder"
export HOME="$folder" LITELLM_LOCAL_MODEL_COST_MAP=True
export LITELLM_MASTER_KEY="sk-$(python3 -c 'import secrets; print(secrets.token_hex(24))')"
cat > check.py <<'PY'
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

CODES = {"busy": "rate_limit_exceeded", "empty": "insufficient_quota"}


class Provider(BaseHTTPRequestHandler):
    """Answers 429 to everything."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        code = CODES[asked["messages"][0]["content"]]
        body = json.dumps({"error": {"message": "no", "type": code, "code": code}}).encode()
        self.send_response(429)
        headers = {"retry-after": "7", "x-ratelimit-remaining-requests": "0"}
        headers |= {"content-type": "application/json", "content-length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def ask(question: str) -> urllib.error.HTTPError | None:
    """The refusal; None while the proxy does not answer yet."""
    body = {"model": "critic", "messages": [{"role": "user", "content": question}]}
    key = os.environ["LITELLM_MASTER_KEY"]
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    address = f"http://127.0.0.1:{port}/v1/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as refusal:
        return refusal
    except urllib.error.URLError:
        return None


server = HTTPServer(("127.0.0.1", 0), Provider)
Thread(target=server.serve_forever, daemon=True).start()
provider = f"http://127.0.0.1:{server.server_port}/v1"
model = {"model": "openai/m", "api_base": provider, "api_key": "none"}
config = {
    "model_list": [{"model_name": "critic", "litellm_params": model}],
    "litellm_settings": {"num_retries": 0},
}
Path("config.yaml").write_text(json.dumps(config))
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
command = [str(Path(sys.executable).parent / "litellm"), "--config", "config.yaml"]
command += ["--host", "127.0.0.1", "--port", str(port)]
with open("log", "w") as log:
    proxy = subprocess.Popen(command, stdout=log, stderr=log)
try:
    end = time.monotonic() + 300
    while ask("busy") is None:
        assert proxy.poll() is None and time.monotonic() < end, Path("log").read_text()
        time.sleep(1)
    for question, code in CODES.items():
        refusal = ask(question)
        error = json.load(refusal)["error"]
        headers = {name: refusal.headers[name] for name in refusal.headers if "retry" in name}
        print(f"provider: {code}, retry-after: 7. Proxy: {refusal.status}, {error}, {headers}")
        assert refusal.status == 429
        assert refusal.headers["retry-after"] is None
        assert refusal.headers["llm_provider-retry-after"] == "7"
        assert refusal.headers["x-ratelimit-remaining-requests"] == "0"
        assert error["code"] == "429" and code not in json.dumps(error)
finally:
    proxy.terminate()
    proxy.wait(60)
PY
"$folder/venv/bin/python" check.py
echo "as seen"
