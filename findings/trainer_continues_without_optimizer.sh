#!/bin/sh
# Software: transformers 5.23.0, torch 2.13.0 (CPU).
# Expected: `train(resume_from_checkpoint=...)` of a checkpoint without optimizer.pt or without
#   rng_state.pth is refused, or warns, because its run cannot go on as the same run. (A checkpoint
#   without weights is refused.)
# Seen: without optimizer.pt training goes on without a word, with Adam's moments at 0 and a new
#   schedule, and ends with other weights. rng_state.pth is missed at the level INFO only, which
#   nobody sees by default.
# Exit status: 0 while transformers does so, 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0
cd "$folder"
cat > check.py <<'PY'
import logging
import shutil
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

messages = []


class Collect(logging.Handler):
    def emit(self, record):
        messages.append(record.getMessage())


logging.getLogger("transformers").addHandler(Collect(logging.WARNING))
rows = [{"input_ids": [i % 7, (i + 1) % 7, (i + 2) % 7], "labels": [1, 2, 3]} for i in range(32)]


def train(folder, checkpoint=None):
    set_seed(0)
    config = GPT2Config(vocab_size=8, n_embd=16, n_layer=1, n_head=2, n_positions=8)
    arguments = TrainingArguments(
        folder, max_steps=4, save_steps=2, per_device_train_batch_size=4, use_cpu=True,
        learning_rate=1e-2, report_to="none", disable_tqdm=True,
    )
    trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=rows)
    trainer.train(resume_from_checkpoint=checkpoint)
    return torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])


wanted = train("whole")
equal = {}
for part in ("", "optimizer.pt", "rng_state.pth"):
    folder = Path("without-" + (part or "nothing"))
    shutil.copytree("whole/checkpoint-2", folder / "checkpoint-2")
    if part:
        (folder / "checkpoint-2" / part).unlink()
    messages.clear()
    equal[part] = torch.equal(train(str(folder), str(folder / "checkpoint-2")), wanted)
    told = [text for text in messages if "optimizer" in text.lower() or "rng" in text.lower()]
    print(f"without {part or 'nothing'}: equal {equal[part]}, warnings of it {told}")
    assert not told, "transformers warns now"
assert equal[""], "a whole checkpoint goes on as another run"
assert not equal["optimizer.pt"], "a checkpoint without optimizer.pt goes on exactly"
assert not equal["rng_state.pth"], "a checkpoint without rng_state.pth goes on exactly"
PY
"$folder/venv/bin/python" check.py
