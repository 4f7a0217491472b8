#!/bin/sh
# TRL 1.16.0: prompts that end with an assistant message (the start of an answer).
#
# Expected: GRPOTrainer has the policy continue that message, as `trl.apply_chat_template` renders
# such prompts (continue_final_message) and as SFT and DPO of the same library train them.
#
# Seen: GRPOTrainer renders every prompt with add_generation_prompt=True. The message is closed with
# its end-of-turn token and an empty turn is opened behind it; nothing warns.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    "torch==2.13.0" "transformers==5.23.0" "trl==1.16.0"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, apply_chat_template

LETTERS = list("abcdefghijklmnopqrstuvwxyz <>|_0123456789=:?\n")
SPECIAL = ["<pad>", "<|end|>", "<|user|>", "<|assistant|>", "<unk>"]
backend = Tokenizer(models.WordLevel({t: i for i, t in enumerate(SPECIAL + LETTERS)}, "<unk>"))
backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
backend.decoder = decoders.Fuse()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=backend, pad_token="<pad>", eos_token="<|end|>", unk_token="<unk>",
    additional_special_tokens=SPECIAL[2:4],
)
tokenizer.chat_template = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
prompt = [{"role": "user", "content": "2=?"}, {"role": "assistant", "content": "so x ="}]
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16,
                num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
)
rendered = []


def seen(prompts, completions, completion_ids, **columns):
    return [0.0] * len(completions)


class Recording(GRPOTrainer):
    def _generate_single_turn(self, prompt_ids, *rest, **options):
        rendered.extend(self.processing_class.decode(ids) for ids in prompt_ids)
        return super()._generate_single_turn(prompt_ids, *rest, **options)


arguments = GRPOConfig(
    "out", num_generations=2, per_device_train_batch_size=2, max_completion_length=2, max_steps=1,
    bf16=False, gradient_checkpointing=False, use_cpu=True, report_to="none", save_strategy="no",
)
data = Dataset.from_list([{"prompt": prompt}] * 2)
Recording(model, seen, arguments, train_dataset=data, processing_class=tokenizer).train()
continued = apply_chat_template({"prompt": prompt}, tokenizer)["prompt"]
print("apply_chat_template:", continued)
print("GRPOTrainer:        ", rendered[0])
assert continued == "<|user|>2=?<|end|><|assistant|>so x ="
assert rendered[0] == "<|user|>2=?<|end|><|assistant|>so x =<|end|><|assistant|>"
PYTHON
echo "as seen"
