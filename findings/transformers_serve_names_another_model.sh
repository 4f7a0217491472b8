#!/bin/sh
# Software: transformers 5.23.0, torch 2.13.0 (CPU).
# Expected: `transformers serve` with a model on its command line answers under the name that it was
#   asked for, or takes the name under which it answers.
# Seen: asked for "tiny" it answers as "tiny@main", and a request for "tiny@main" is refused: "Server
#   is pinned to 'tiny'". A client that compares the two names rejects every answer.
# Exit status: 0 while the server does so, 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "transformers[serving]==5.23.0"
cd "$folder"
cat > check.py <<'PY'
import json
import os
import time
import urllib.error
import urllib.request

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.cli.serve import Serve

PORT = 8394
words = ["<pad>", "<|end|>", "<unk>", *"abcdefghijklmnopqrstuvwxyz "]
backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
backend.decoder = decoders.Fuse()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=backend, pad_token="<pad>", eos_token="<|end|>", unk_token="<unk>"
)
tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=len(words), hidden_size=16, intermediate_size=16,
                num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
)
model.save_pretrained("tiny")
tokenizer.save_pretrained("tiny")


def ask(name):
    """Status and body of an answer to a request for a model of this name."""
    body = {"model": name, "messages": [{"role": "user", "content": "a"}], "max_tokens": 3}
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)
    except urllib.error.URLError:
        return 0, {}  # it does not listen yet


Serve("tiny", device="cpu", dtype="float32", host="127.0.0.1", port=PORT, non_blocking=True)
end = time.monotonic() + 60
status, answer = ask("tiny")
while status == 0 and time.monotonic() < end:
    time.sleep(0.5)
    status, answer = ask("tiny")
print("asked for tiny:     ", status, answer.get("model"))
other_status, refusal = ask("tiny@main")
print("asked for tiny@main:", other_status, refusal, flush=True)
as_seen = (status, answer.get("model"), other_status) == (200, "tiny@main", 400)
# The server's thread would go on.
os._exit(0 if as_seen and "pinned" in refusal["detail"] else 1)
PY
"$folder/venv/bin/python" check.py
echo "as seen"
