"""pipelines/serve_teacher.py on loopback in a thread, which misbehaves where it is told to."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from critique_rl.policy import load_policy

PIPELINES = Path(__file__).parents[1] / "pipelines"


def serve_teacher():
    spec = importlib.util.spec_from_file_location("serve_teacher", PIPELINES / "serve_teacher.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class ScoringServer:
    """`asked` are the bodies of requests; `fault` is what each answer has from now on."""

    def __init__(self, scorer):
        self.scorer = scorer
        self.asked: list[dict] = []
        self.fault = ""
        self.url = ""

    @property
    def name(self) -> str:
        return self.scorer.name

    def answer(self, request: dict) -> dict:
        self.asked.append(request)
        fault = self.fault
        if fault == "bos":
            return self.scorer.answer({**request, "prompt": [1, *request["prompt"]]})
        if fault == "echo":
            request = {key: value for key, value in request.items() if key != "prompt_logprobs"}
        if fault == "no log-probs":
            request = {"prompt": request["prompt"]}
        answer = self.scorer.answer(request)
        choice = answer["choices"][0]
        if fault == "hidden bos":
            answer["usage"]["prompt_tokens"] += 1
        if fault == "other tokens":
            for place, entry in enumerate(choice["prompt_logprobs"][1:], 1):
                [scores] = entry.values()
                choice["prompt_logprobs"][place] = {"7": scores}
        if fault == "other texts":
            for entry in choice["prompt_logprobs"][1:]:
                for scores in entry.values():
                    scores["decoded_token"] = "q"
        return answer


@contextmanager
def serving(model: str) -> Iterator[ScoringServer]:
    """A server of a model's folder."""
    module = serve_teacher()
    loaded, tokenizer = load_policy(model)
    server = ScoringServer(module.Scorer(loaded, tokenizer, "m"))

    class Handler(module.Handler):
        def do_POST(self) -> None:
            if server.fault == "dead":
                # As a server that was killed: the connection closes without an answer.
                self.close_connection = True
                return
            super().do_POST()

    listening = module.make_server(server, 0, Handler)
    server.url = f"http://127.0.0.1:{listening.server_port}/v1"
    thread = Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
