"""`critique-rl lab`: build the base policies of the embedded worlds, and show their tables. Heavy
imports happen inside, so `--help` answers at once.
"""

from __future__ import annotations

import json
from pathlib import Path

from critique_rl.config.checks import ConfigError

WORLDS = ("chain", "legs", "tiers", "facts")
BUILT = (*WORLDS, "critic")
"""What a recipe builds: the worlds' base policies, and a critic of chain."""


def add_lab_command(commands) -> None:
    """Add `lab` and its two actions to the parser."""
    lab = commands.add_parser(
        "lab", help="the embedded world: build its base policy, show its table"
    )
    actions = lab.add_subparsers(required=True, metavar="ACTION")
    build = actions.add_parser("build", help="train the base policy by its recipe")
    build.add_argument("--out", type=Path, required=True, help="folder for model and tokenizer")
    build.add_argument(
        "--world",
        default="chain",
        choices=BUILT,
        help="legs needs the extra `tasks`; critic: a critic of chain (default: chain)",
    )
    build.add_argument(
        "--no-critiques",
        dest="critiques",
        action="store_false",
        default=None,
        help="legs: a warm start that never saw a critique",
    )
    build.add_argument(
        "--locality",
        type=float,
        help="share of refinement examples with an incomplete, wrong or empty critique",
    )
    build.add_argument(
        "--trap-chance",
        type=float,
        help="chain: chance of the right step at a trap when solving (default: 0, a plateau)",
    )
    build.add_argument(
        "--unseen",
        choices=("sign", "minus", "carry", "borrow"),
        help="chain: a kind of trap that no critique ever names",
    )
    build.add_argument(
        "--start", type=Path, help="go on from a base built before, instead of from nothing"
    )
    build.add_argument("--learning-rate", type=float)
    build.add_argument("--sequences", type=int, help="training examples")
    build.add_argument("--seed", type=int)
    build.set_defaults(command=_lab_build)
    table = actions.add_parser(
        "table",
        help="pass@k of the base per family, calibration, and what each kind of critique rescues",
    )
    table.add_argument(
        "--model", type=Path, help="a built base (default: the committed one of the world)"
    )
    table.add_argument("--world", default="chain", choices=WORLDS)
    table.add_argument("--problems", type=int, default=200)
    table.add_argument("--samples", type=int, default=64)
    table.add_argument("--split", default="test", choices=("validation", "test"))
    table.add_argument("--json", action="store_true")
    table.set_defaults(command=_lab_table)


def _lab_build(arguments) -> int:
    from dataclasses import replace

    from critique_rl.lab.build import build, world_by_name

    if arguments.critiques is False and arguments.world != "legs":
        raise ConfigError(
            f"--no-critiques: is of legs, and got --world {arguments.world}; give --world legs"
        )
    try:
        chosen = world_by_name(arguments.world)
    except ImportError as error:
        raise ConfigError(f"--world: {error}") from error
    if arguments.world != "chain" and (arguments.trap_chance is not None or arguments.unseen):
        raise ConfigError("--trap-chance, --unseen: traps are of chain; leave --world out")
    if arguments.world in ("tiers", "facts", "critic") and arguments.locality is not None:
        raise ConfigError(
            f"--locality: no example of {arguments.world} is a refinement; leave it out"
        )
    if arguments.start and not arguments.start.is_dir():
        raise ConfigError(
            f"--start: no folder {arguments.start}; the committed base is critique_rl/lab/weights/chain"
        )
    names = ("locality", "critiques", "trap_chance", "unseen", "learning_rate", "sequences", "seed")
    given = {
        name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None
    }
    build(replace(chosen.recipe, **given), arguments.out, chosen, arguments.start)
    return 0


def _lab_table(arguments) -> int:
    from critique_rl.experiment.lab_table import lab_table, print_table
    from critique_rl.lab.base import weights_folder

    if arguments.model is None and arguments.world == "legs":
        raise ConfigError(
            f"--model: no base of {arguments.world} is committed; build one: critique-rl lab build --world {arguments.world} --out DIR"
        )
    rows = lab_table(
        arguments.model or weights_folder(arguments.world),
        arguments.problems,
        arguments.samples,
        arguments.split,
        arguments.world,
    )
    print(json.dumps(rows)) if arguments.json else print_table(rows)
    return 0
