#!/bin/sh
# Software: TRL 1.16.0, transformers 5.23.0, torch 2.13.0 (CPU).
# Expected: GRPOTrainer samples rollouts as `generate` samples anywhere else, with dropout off. With
#   top_k 1 (greedy), 40 rollouts of one prompt are then 40 times the same text. Nothing in the
#   options of sampling speaks of dropout.
# Seen: the trainer calls `generate` in training mode, so dropout acts while rollouts are sampled:
#   several different greedy rollouts of one prompt. `disable_dropout=True`, which is False by
#   default, gives the one text. Rollouts and evaluations of the same weights therefore differ for a
#   policy with dropout in its config (GPT-2 kinds have .1).
# Exit status: 0 while TRL does so, 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 trl==1.16.0
cd "$folder"
cat > check.py <<'PY'
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

words = ["<unk>", "<pad>", "<s>", "</s>", *[f"w{i}" for i in range(60)]]
tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
fast = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
)


def different_rollouts(disable_dropout: bool) -> int:
    """Different texts among 40 greedy rollouts of one prompt, as a reward function sees them."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=64,
        bos_token_id=2, eos_token_id=3,
    )
    assert config.attn_pdrop == config.resid_pdrop == config.embd_pdrop == 0.1
    seen = []

    def reward(completions, **columns):
        seen.extend(completions)
        return [0.0] * len(completions)

    arguments = GRPOConfig(
        output_dir="out", max_steps=1, per_device_train_batch_size=40, num_generations=40,
        max_completion_length=8, top_k=1, disable_dropout=disable_dropout, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to="none", save_strategy="no",
    )
    rows = Dataset.from_list([{"prompt": "w1 w2 w3"}] * 4)
    GRPOTrainer(GPT2LMHeadModel(config), reward, arguments, rows, processing_class=fast).train()
    assert len(seen) == 40
    return len(set(seen))


on, off = different_rollouts(False), different_rollouts(True)
print(f"different greedy rollouts of one prompt: {on} by default, {off} with disable_dropout")
assert on > 1, "rollouts are sampled without dropout now"
assert off == 1, "greedy rollouts differ even without dropout"
PY
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 venv/bin/python check.py > output.txt 2> errors.txt \
    || { tail -5 errors.txt >&2; exit 1; }
grep "different greedy rollouts" output.txt
