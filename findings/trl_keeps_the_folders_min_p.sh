#!/bin/sh
# Software: TRL 1.16.0, transformers 5.23.0, torch 2.13.0 (CPU).
# Expected: the options of GRPOConfig say how rollouts are sampled. temperature, top_p, top_k and
#   repetition_penalty of the model's generation_config.json are indeed replaced by theirs, so its
#   min_p should be replaced by GRPOConfig.min_p, whose default None reads as "off".
# Seen: min_p (and no_repeat_ngram_size, typical_p, suppress_tokens, num_beams and others) of the
#   model's folder stays in force, because transformers fills every setting that is None from the
#   folder. With min_p 1.0 there, rollouts at temperature 1 are greedy; with top_k 1 there, which
#   means the same, they are not. Log-probs of the loss know nothing of min_p.
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
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

words = ["<unk>", "<pad>", "<s>", "</s>", *[f"w{i}" for i in range(60)]]
tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
fast = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
)


def different_rollouts(**generation) -> int:
    """Different texts among 40 rollouts of one prompt from a folder with these settings."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, bos_token_id=2, eos_token_id=3,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.update(do_sample=True, **generation)
    model.save_pretrained("policy")
    seen = []

    def reward(completions, **columns):
        seen.extend(completions)
        return [0.0] * len(completions)

    arguments = GRPOConfig(
        output_dir="out", max_steps=1, per_device_train_batch_size=40, num_generations=40,
        max_completion_length=8, use_cpu=True, bf16=False, gradient_checkpointing=False,
        report_to="none", save_strategy="no",
    )
    assert arguments.min_p is None
    rows = Dataset.from_list([{"prompt": "w1 w2 w3"}] * 4)
    loaded = LlamaForCausalLM.from_pretrained("policy")
    GRPOTrainer(loaded, reward, arguments, rows, processing_class=fast).train()
    assert len(seen) == 40
    return len(set(seen))


top_k, min_p = different_rollouts(top_k=1), different_rollouts(min_p=1.0)
print(f"different rollouts of one prompt: {top_k} where the folder has top_k 1, {min_p} with min_p 1.0")
assert top_k > 30, "the folder's top_k is in force now"
assert min_p == 1, "the folder's min_p is replaced now"
PY
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 venv/bin/python check.py > output.txt 2> errors.txt \
    || { tail -5 errors.txt >&2; exit 1; }
grep "different rollouts" output.txt
