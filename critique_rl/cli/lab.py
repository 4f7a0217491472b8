"""`critique-rl lab`: build the base policies of the embedded worlds, and show their tables."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from critique_rl.cli.arguments import Commands, whole_number
from critique_rl.config.checks import ConfigError

WORLDS = ("chain", "legs", "tiers", "facts", "code")
BUILT = (*WORLDS, "critic")
"""Names of recipes: the worlds' base policies, and a critic of chain."""
RECIPE_OPTIONS = (
    "locality",
    "critiques",
    "trap_chance",
    "direct_share",
    "unseen",
    "learning_rate",
    "sequences",
    "seed",
)
"""Arguments of `build` that replace a field of the recipe where they are given."""


def add_command(commands: Commands) -> None:
    """Add `lab` and its two actions to the parser."""
    command = commands.add_parser(
        "lab", help="the embedded world: build its base policy, show its table"
    )
    actions = command.add_subparsers(required=True, metavar="ACTION")
    _add_build(actions)
    _add_table(actions)


def _add_build(actions: Commands) -> None:
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
        # None, not True: only an argument that is given replaces the recipe's field.
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
        "--direct-share",
        type=float,
        help="tiers: share of examples that answer without steps (default: 0)",
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
    build.add_argument("--sequences", type=whole_number, help="training examples")
    build.add_argument("--seed", type=whole_number)
    build.set_defaults(command=build_base)


def _add_table(actions: Commands) -> None:
    table = actions.add_parser(
        "table",
        help="pass@k of the base per family, calibration, and what each kind of critique rescues",
    )
    table.add_argument(
        "--model", type=Path, help="a built base (default: the committed one of the world)"
    )
    table.add_argument("--world", default="chain", choices=WORLDS)
    table.add_argument("--problems", type=whole_number, default=200)
    table.add_argument("--samples", type=whole_number, default=64)
    table.add_argument("--split", default="test", choices=("validation", "test"))
    table.add_argument("--json", action="store_true")
    table.set_defaults(command=show_table)


def build_base(arguments: argparse.Namespace) -> int:
    """Train a base policy by its recipe.

    Raises:
        ConfigError: Arguments that do not fit the world, or an extra that is not installed.
    """
    from dataclasses import replace

    from critique_rl.lab.build import build, world_by_name

    try:
        world = world_by_name(arguments.world)
    except ImportError as error:
        raise ConfigError(f"--world: {error}") from error
    _check_build_arguments(arguments)
    given = {}
    for name in RECIPE_OPTIONS:
        value = getattr(arguments, name)
        if value is not None:
            given[name] = value
    build(replace(world.recipe, **given), arguments.out, world, arguments.start)
    return 0


def _check_build_arguments(arguments: argparse.Namespace) -> None:
    """Refuse options that the recipe of the world does not have.

    Raises:
        ConfigError: Such an option, a share outside [0, 1], or no folder to start from.
    """
    world = arguments.world
    share = arguments.direct_share
    if share is not None and world != "tiers":
        raise ConfigError(
            f"--direct-share: is of tiers, and got --world {world}; give --world tiers"
        )
    if share is not None and not 0 <= share <= 1:
        raise ConfigError(f"--direct-share: got {share:g}, expected a share from 0 to 1")
    if arguments.critiques is False and world != "legs":
        raise ConfigError(f"--no-critiques: is of legs, and got --world {world}; give --world legs")
    if world != "chain" and (arguments.trap_chance is not None or arguments.unseen):
        raise ConfigError("--trap-chance, --unseen: traps are of chain; leave --world out")
    if world in ("tiers", "facts", "critic") and arguments.locality is not None:
        raise ConfigError(f"--locality: no example of {world} is a refinement; leave it out")
    if arguments.start and not arguments.start.is_dir():
        raise ConfigError(
            f"--start: no folder {arguments.start}; "
            "the committed base is critique_rl/lab/weights/chain"
        )


def show_table(arguments: argparse.Namespace) -> int:
    """Print the table of a base.

    Raises:
        ConfigError: No base of this world is committed, and none is given.
    """
    from critique_rl.experiment.lab.table import lab_table, print_table
    from critique_rl.lab.base import weights_folder

    world = arguments.world
    if arguments.model is None and world == "legs":
        raise ConfigError(
            f"--model: no base of {world} is committed; "
            f"build one: critique-rl lab build --world {world} --out DIR"
        )
    model = arguments.model or weights_folder(world)
    rows = lab_table(model, arguments.problems, arguments.samples, arguments.split, world)
    if arguments.json:
        print(json.dumps(rows))
    else:
        print_table(rows)
    return 0
