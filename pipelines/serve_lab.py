"""Serve a lab model on this machine with the OpenAI chat interface: a critic that costs nothing and
needs no network.

    # FastAPI and Uvicorn, for the server of transformers; `make install` has them
    pip install -e '.[serve]'
    # lab/critic, under the name `critic`
    python pipelines/serve_lab.py --port 8012
    # a folder, under the folder's name
    python pipelines/serve_lab.py --model runs/my-critic

Serves until Ctrl-C. This is `transformers serve` with continuous batching: one request after the
other took four times as long. It answers greedily whatever temperature it is asked for, since the
model's own generation settings do not sample.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from critique_rl.policy import resolve_model

HOST = "127.0.0.1"


def start(model: str, port: int, background: bool = False):
    """The server with a loaded model. It serves until it is interrupted, or in a thread of this
    process until its `kill_server` is called.
    """
    from transformers.cli.serve import Serve

    folder = Path(resolve_model(model)).resolve()
    # The server knows a model by its path alone; from here that is the folder's name, which is the
    # same on every machine.
    os.chdir(folder.parent)
    print(f"http://{HOST}:{port}/v1, model {folder.name}", flush=True)
    # Without a size it takes nearly all memory for its cache. 128 blocks of 256 tokens are 64
    # requests of the longest context.
    cache = {"cb_num_blocks": 128, "cb_max_batch_tokens": 1024}
    return Serve(
        folder.name,
        continuous_batching=True,
        device="cpu",
        dtype="float32",
        host=HOST,
        port=port,
        non_blocking=background,
        **cache,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="lab/critic", help="lab/critic, or a folder (default: lab/critic)"
    )
    parser.add_argument("--port", type=int, default=8012)
    options = parser.parse_args()
    try:
        start(options.model, options.port)
    except ImportError as error:
        parser.exit(1, f"{error}; or: pip install -e '.[serve]'\n")


if __name__ == "__main__":
    main()
