#!/bin/sh
# TRL 1.16.0 with report_to="trackio" and log_completions (trackio 0.43.0, transformers 5.23.0).
#
# Expected: the loss of optimizer step k stands at step k of trackio, and so do the timings of TRL's
# profiling for that step.
#
# Seen: transformers' callback and TRL's table of completions give trackio no step, and then trackio
# takes the one after its last. A table of each step is a step of its own: the losses of 4 optimizer
# steps stand at 1, 3, 5 and 7, tables between them. TRL's profiling does give the optimizer step,
# so timings stand at 0 to 3, beside losses of other steps. Without log_completions the losses stand
# at 1 to 4. A second trainer of the same run_name, as a continued run has, goes on after the last
# row: at 11, whatever its optimizer step is.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.13.0" "transformers==5.23.0" "trl==1.16.0" \
    "datasets==5.2.0" "trackio==0.43.0" "rich>=15"
cd "$folder"
HF_HUB_OFFLINE=1 TRACKIO_DIR="$folder/trackio" "$folder/venv/bin/python" - <<'PYTHON'
import json
import os
import sqlite3
import tempfile

from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

words = {"<end>": 0, "<pad>": 1, **{f"w{i}": i for i in range(2, 40)}}
plain = Tokenizer(WordLevel(words, unk_token="<pad>"))
plain.pre_tokenizer = Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>", pad_token="<pad>")
SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2}
STEPS = 4


def train(project: str, log_completions: bool) -> None:
    model = LlamaForCausalLM(
        LlamaConfig(**SIZES, **HEADS, eos_token_id=0, pad_token_id=1, bos_token_id=None)
    )
    with tempfile.TemporaryDirectory() as output:
        arguments = GRPOConfig(
            output,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=4,
            max_steps=STEPS,
            logging_steps=1,
            log_completions=log_completions,
            num_completions_to_print=0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="trackio",
            project=project,
            run_name="one",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model,
            lambda completions, **columns: [float(len(text)) for text in completions],
            arguments,
            Dataset.from_list([{"prompt": "w2 w3"}] * 16),
            processing_class=tokenizer,
        )
        trainer.train()


def steps_of(project: str, metric: str) -> list[int]:
    with sqlite3.connect(os.path.join(os.environ["TRACKIO_DIR"], f"{project}.db")) as database:
        query = "select step, metrics from metrics order by id"
        rows = [(step, json.loads(text)) for step, text in database.execute(query)]
    return [step for step, metrics in rows if any(name.endswith(metric) for name in metrics)]


train("plain", False)
assert steps_of("plain", "train/loss") == [1, 2, 3, 4], steps_of("plain", "train/loss")
train("tables", True)
losses, tables = steps_of("tables", "train/loss"), steps_of("tables", "completions")
timings = steps_of("tables", "compute_loss")
print("losses", losses, "tables", tables, "timings", timings)
assert losses == [1, 3, 5, 7], "losses stand elsewhere: changed"
assert timings == [0, 1, 2, 3], "timings stand elsewhere: changed"
train("tables", True)
later = steps_of("tables", "train/loss")[STEPS:]
print("losses of a second trainer of the name", later)
assert later == [11, 13, 15, 17], "the second one starts at its own step: changed"
PYTHON
echo "as seen"
