"""Serve SmolLM2-135M-Instruct on this machine with the OpenAI chat interface: a critic that costs
nothing and needs no network.

    make smollm2
    python pipelines/serve_smollm2.py --port 8011

Prints the base_url once the server answers, and serves until Ctrl-C. llama.cpp runs inside this
process (the wheel xllamacpp).
"""

from __future__ import annotations

import argparse
import sys
import threading
from contextlib import suppress

from critique_rl.policy import smollm2_gguf


def start(port: int, parallel: int, threads: int):
    """A running server on 127.0.0.1; port 0 takes a free one. Returns when the model is loaded."""
    try:
        import xllamacpp
    except ImportError:
        sys.exit("serving needs the package xllamacpp; run: make smollm2")
    params = xllamacpp.CommonParams()
    params.model.path = str(smollm2_gguf())
    params.model_alias = {"smollm2"}
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = parallel, 2048 * parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = 0
    return xllamacpp.Server(params)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=8011)
    parser.add_argument(
        "--parallel",
        type=int,
        default=4,
        help="requests answered at a time, each with 2048 tokens of context",
    )
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    server = start(options.port, options.parallel, options.threads)
    print(f"{server.listening_address}/v1", flush=True)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    main()
