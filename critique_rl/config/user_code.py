"""Code of the user's own, named in a pipeline as "module:name": found beside the pipeline's working
folder or among installed packages.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def load(target: str) -> Any:
    """What "module:name" names. ValueError that says which part is missing; an error inside the
    module is raised as it is.
    """
    module, separator, name = str(target).partition(":")
    if not (separator and module and name):
        raise ValueError(
            f"target {target!r}: expected module:name, such as my_critic:MyCritic for a class MyCritic in my_critic.py"
        )
    if os.getcwd() not in sys.path:
        # A console script's path begins with its own folder, not with the one it is run in.
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            raise ValueError(
                f"target {target!r}: no module {module!r} in {os.getcwd()} or among installed packages"
            ) from error
        raise
    if not hasattr(found, name):
        names = sorted(
            each
            for each in vars(found)
            if not each.startswith("_") and callable(getattr(found, each))
        )
        raise ValueError(
            f"target {target!r}: module {module!r} has no {name!r}; it has {', '.join(names) or 'nothing that can be called'}"
        )
    return getattr(found, name)
