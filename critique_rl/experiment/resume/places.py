"""What lies where a run is going to write: seen before the training, not after it."""

from __future__ import annotations

from critique_rl.config.checks import ConfigError
from critique_rl.config.run_folder import RunFolder


def check_places(run: RunFolder) -> None:
    """Refuse a folder in place of eval.json, files in place of folders, and links to nowhere.

    Raises:
        ConfigError: The first of these.
    """
    weights = (run.checkpoints, run.model, run.best_model, run.snapshots)
    folders = (run.rollouts, *weights, run.critic, run.teacher)
    for path in (run.evaluation, *folders):
        words = ""
        is_there = path.exists()
        if not is_there and path.is_symlink():
            words = "a link to nowhere"
        elif is_there and path in folders and not path.is_dir():
            words = "no folder, which a run needs there"
        elif is_there and path not in folders and not path.is_file():
            words = "no file, which a run needs there"
        if words:
            raise ConfigError(f"{path} is {words}; move it away or remove it")
