#!/bin/sh
# Software: TRL 1.16.0, transformers 5.23.0, torch 2.13.0 (CPU).
# Expected: GRPOTrainer scores completions in the precision of the policy. A policy in float64, as
#   one takes for a check of a loss or of its gradient, has log-probs in float64, exact to 1e-15.
# Seen: the trainer gives a model a fused head that computes in float32 whatever the weights are.
#   Log-probs of a float64 policy are float32, 1e-8 to 1e-6 away from those of its own logits. So a
#   ratio, a KL or a difference of two log-probs has seven digits at most, and fewer where it is
#   small; finite differences with steps of 1e-6 see rounding alone. The model's own forward pass
#   stays in float64.
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
torch.manual_seed(0)
config = GPT2Config(
    vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=2,
    eos_token_id=3, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, initializer_range=0.3,
)
policy = GPT2LMHeadModel(config).double()
arguments = GRPOConfig(
    output_dir="out", max_steps=1, per_device_train_batch_size=8, num_generations=8,
    max_completion_length=8, use_cpu=True, bf16=False, gradient_checkpointing=False,
    report_to="none", save_strategy="no",
)
rows = Dataset.from_list([{"prompt": "w1 w2 w3"}] * 4)
trainer = GRPOTrainer(
    policy, lambda completions, **columns: [0.0] * len(completions), arguments, rows,
    processing_class=fast,
)
ids = torch.randint(4, len(words), (8, 11))
with torch.no_grad():
    logits = policy(ids, attention_mask=torch.ones_like(ids)).logits[:, 2:-1]
    exact = torch.log_softmax(logits, -1).gather(-1, ids[:, 3:].unsqueeze(-1)).squeeze(-1)
    scored, *_ = trainer._get_per_token_logps_and_entropies(policy, ids, torch.ones_like(ids), 8)
gap = (scored.double() - exact).abs().max().item()
print(f"log-probs of a {logits.dtype} policy: {scored.dtype}, up to {gap:.1e} from its logits'")
assert logits.dtype == torch.float64, "the policy itself is no longer in float64"
assert scored.dtype == torch.float32, "TRL scores in the precision of the policy now"
assert 1e-9 < gap < 1e-4
PY
HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 venv/bin/python check.py > output.txt 2> errors.txt \
    || { tail -5 errors.txt >&2; exit 1; }
grep "log-probs of a" output.txt
