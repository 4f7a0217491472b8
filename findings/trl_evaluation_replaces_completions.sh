#!/bin/sh
# TRL 1.16.0, GRPOTrainer with log_completions and eval_strategy.
#
# Expected: tables of evaluations have files, or a column, of their own beside those of training.
#
# Seen: both are written to completions/completions_<step>.parquet. At a step that is logged and
# evaluated, the evaluation's table replaces that of training, with the same columns: nothing says
# that its rows are held out. With evaluations at every logged step no row of training is left.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    "torch==2.13.0" "transformers==5.23.0" "trl==1.16.0" "datasets==5.2.0" "rich>=15"
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON'
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
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


def completions(evaluates: bool) -> dict[str, set[str]]:
    """File of completions -> the prompts in it."""
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = LlamaForCausalLM(
        LlamaConfig(**SIZES, **heads, eos_token_id=0, pad_token_id=1, bos_token_id=None)
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            folder,
            per_device_train_batch_size=4,
            per_device_eval_batch_size=4,
            num_generations=4,
            max_completion_length=4,
            max_steps=2,
            logging_steps=1,
            log_completions=True,
            eval_strategy="steps" if evaluates else "no",
            eval_steps=1,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            num_completions_to_print=0,
        )
        trainer = GRPOTrainer(
            model,
            lambda completions, **columns: [float(len(text)) for text in completions],
            arguments,
            Dataset.from_list([{"prompt": "w2 w3"}] * 8),
            Dataset.from_list([{"prompt": "w9 w8"}] * 4),
            processing_class=tokenizer,
        )
        trainer.train()
        files = sorted(Path(folder, "completions").iterdir())
        seen = {}
        for file in files:
            table = pq.read_table(file)
            seen[file.name] = set(table["prompt"].to_pylist())
            columns = table.column_names
    print(columns)
    return seen


without = completions(False)
both = completions(True)
print("without evaluation", without)
print("with evaluation   ", both)
assert without == {f"completions_0000{i}.parquet": {"w2 w3"} for i in (1, 2)}
assert both.keys() == without.keys(), "evaluations have files of their own: changed"
assert all(prompts == {"w9 w8"} for prompts in both.values()), "training's rows stay: changed"
PYTHON
echo "as seen"
