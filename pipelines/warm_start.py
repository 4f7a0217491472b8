"""Warm-start a language model on the examples of a lab world, or of word problems: how to answer
there, and how to refine a wrong attempt by a critique.

    make smollm2
    # SmolLM2-135M on the easy questions of lab/legs (pip extra `tasks`)
    python pipelines/warm_start.py --out runs/smollm2-legs
    python pipelines/warm_start.py --model my-model --world chain --out runs/my-base
    # on the training questions of reasoning-core/words (pip extra `words`)
    python pipelines/warm_start.py --world words --model runs/smollm2-legs --out runs/smollm2-words

TRL's SFTTrainer on completions only, by the model's own chat template. Stopped, the same command
goes on from its last checkpoint, which is deleted at the end. Left out: the recipe's size, batch
and rate, which are of the lab's own small models; only its mix of examples is taken.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

BATCH = 8


def examples(world: str) -> Callable[[random.Random], tuple[str, str]]:
    """What draws one example of a world: (prompt, answer)."""
    if world == "words":
        from critique_rl.tasks.words.examples import warm_start_example
        from critique_rl.tasks.words.problems import load_problems

        return partial(warm_start_example, load_problems().rows("train", with_working=True))
    from critique_rl.lab.build import world_by_name

    chosen = world_by_name(world)
    return partial(chosen.example, chosen.recipe)


def dataset(world: str, sequences: int, seed: int):
    """Rows of prompt and completion, one turn each; the same seed gives the same rows."""
    from datasets import Dataset

    draw, rng = examples(world), random.Random(seed)
    pairs = [draw(rng) for _ in range(sequences)]
    turn = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
    return Dataset.from_list(
        [
            {"prompt": turn("user", asked), "completion": turn("assistant", answer)}
            for asked, answer in pairs
        ]
    )


def last_whole(kept: Path) -> str | None:
    """The newest checkpoint whose state, which the Trainer writes last, can be read: a kill may
    strike while it is written. None where there is none.
    """
    for folder in sorted(
        kept.glob("checkpoint-*"),
        key=lambda folder: int(folder.name.partition("-")[2]),
        reverse=True,
    ):
        with suppress(OSError, ValueError):
            json.loads((folder / "trainer_state.json").read_text())
            return str(folder)
    return None


def train(options: argparse.Namespace) -> None:
    """Train, or go on, and save model and tokenizer in `options.out`."""
    from trl import SFTConfig, SFTTrainer

    from critique_rl.policy import load_policy

    model, tokenizer = load_policy(options.model)
    kept = options.out / "checkpoints"
    settings = SFTConfig(
        output_dir=str(kept),
        per_device_train_batch_size=BATCH,
        train_sampling_strategy="group_by_length",
        num_train_epochs=1,
        learning_rate=options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        bf16=options.bf16,
        use_cpu=options.cpu,
        gradient_checkpointing=False,
        save_steps=50,
        save_total_limit=1,
        logging_steps=10,
        report_to="none",
        seed=options.seed,
    )
    rows = dataset(options.world, options.sequences, options.seed)
    trainer = SFTTrainer(model, args=settings, train_dataset=rows, processing_class=tokenizer)
    trainer.train(resume_from_checkpoint=last_whole(kept))
    trainer.save_model(str(options.out))
    shutil.rmtree(kept)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="smollm2", help="a folder, a Hub id or smollm2 (default: smollm2)"
    )
    parser.add_argument(
        "--world",
        default="legs",
        choices=("legs", "chain", "words"),
        help="whose examples (default: legs)",
    )
    parser.add_argument(
        "--sequences", type=int, default=1024, help="examples, each read once (default: 1024)"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="matrix products in bfloat16 where the processor has them; weights stay float32",
    )
    parser.add_argument("--gpu", dest="cpu", action="store_false", help="use a GPU")
    parser.add_argument("--out", type=Path, required=True, help="folder for model and tokenizer")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
