#!/bin/sh
# peft 0.21.2, TRL 1.16.0's way of keeping a reference for a model that comes with an adapter.
#
# Expected: `model.add_adapter("ref", model.peft_config["default"])` leaves the outputs of the adapter
# "default" as they are, and `disable_adapter()` gives the original model, as with init_lora_weights
# True and "gaussian".
#
# Seen: with init_lora_weights "pissa" and "olora" the initialisation subtracts the adapter from the
# weights under it. With the adapter off the model is another one. A second adapter of the same
# config subtracts once more, from weights that the first adapter shares: the outputs of "default"
# change, without a warning. TRL's GRPOTrainer does this for a PeftModel with beta > 0, so both the
# policy and its reference start away from the model that was given.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    "torch==2.13.0" "transformers==5.23.0" "peft==0.21.2"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
IDS = torch.arange(1, 17)[None]


def gaps(init) -> tuple[float, float, float]:
    """Largest change of a logit: fresh adapter, adapter off, after a second adapter."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, num_key_value_heads=2, **SIZES))

    def change(present) -> float:
        return (present(IDS).logits - original).abs().max().item()

    with torch.no_grad():
        original = model(IDS).logits
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=init)
        wrapped = get_peft_model(model, config)
        fresh = change(wrapped)
        with wrapped.disable_adapter():
            off = change(wrapped)
        wrapped.add_adapter("ref", wrapped.peft_config["default"])
        wrapped.set_adapter("default")
        return fresh, off, change(wrapped)


for init in (True, "gaussian", "pissa", "olora"):
    fresh, off, second = gaps(init)
    print(f"{init!s:9} fresh {fresh:.1e}  off {off:.1e}  after a second adapter {second:.1e}")
    moves = init in ("pissa", "olora")
    assert fresh < 1e-5, "a fresh adapter changed the model"
    assert (off > 1e-2) == moves, "the adapter off is another model: changed"
    assert (second > 1e-2) == moves, "a second adapter moves the first: changed"
PYTHON
echo "as seen"
