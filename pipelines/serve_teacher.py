"""Serve the log-probs of given texts under a model of transformers, on this machine's CPU: a
teacher for `distill_teacher: {base_url: ...}` where no server with a GPU is at hand.

    python pipelines/serve_teacher.py --model lab --port 8013

It answers POST /v1/completions with a list of token ids as prompt, in the two forms in which
servers give log-probs of a prompt: `prompt_logprobs` (vLLM's) and `echo` with `logprobs` (OpenAI's
first). It samples nothing: `text` is empty. One request after the other is read, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Any

import torch

from critique_rl.policy import load_policy

HOST = "127.0.0.1"


class Scorer:
    """A model that reads token ids."""

    def __init__(self, model: Any, tokenizer: Any, name: str):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.lock = Lock()

    @torch.no_grad()
    def logps(self, ids: list[int]) -> list[float]:
        """The log-prob of each token but the first."""
        with self.lock:
            logits = self.model(torch.tensor([ids])).logits[0, :-1]
        picked = torch.log_softmax(logits.float(), -1).gather(1, torch.tensor(ids[1:])[:, None])
        return picked.flatten().tolist()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer.

        Raises:
            ValueError: the prompt is no list of token ids.
        """
        ids = request.get("prompt")
        if not isinstance(ids, list) or not all(isinstance(number, int) for number in ids):
            raise ValueError("prompt: expected a list of token ids")
        logps = [None, *self.logps(ids)]
        texts = [self.tokenizer.decode([number]) for number in ids]
        choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": "length"}
        if request.get("echo"):
            choice["logprobs"] = {"tokens": texts, "token_logprobs": logps}
        if request.get("prompt_logprobs") is not None:
            entries: list[Any] = [None]
            for number, text, logp in list(zip(ids, texts, logps, strict=True))[1:]:
                entries.append({str(number): {"logprob": logp, "decoded_token": text}})
            choice["prompt_logprobs"] = entries
        usage = {"prompt_tokens": len(ids), "completion_tokens": 0, "total_tokens": len(ids)}
        return {"model": self.name, "choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    scorer: Scorer

    def do_GET(self) -> None:
        self.send(200, {"data": [{"id": self.scorer.name}]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if not self.path.endswith("/v1/completions"):
            self.send(404, {"error": {"message": f"no {self.path}; expected /v1/completions"}})
            return
        try:
            self.send(200, self.scorer.answer(json.loads(body)))
        except (ValueError, IndexError) as error:
            self.send(400, {"error": {"message": str(error)}})

    def send(self, status: int, content: dict[str, Any]) -> None:
        """Send JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: each training step asks many times."""


def make_server(scorer: Scorer, port: int, handler: type[Handler] = Handler) -> ThreadingHTTPServer:
    """A server that does not serve yet."""
    bound = type("Bound", (handler,), {"scorer": scorer})
    return ThreadingHTTPServer((HOST, port), bound)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="lab", help="as policy.model (default: lab)")
    parser.add_argument("--port", type=int, default=8013)
    options = parser.parse_args()
    model, tokenizer = load_policy(options.model)
    server = make_server(Scorer(model, tokenizer, options.model), options.port)
    print(f"http://{HOST}:{server.server_port}/v1, model {options.model}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
