"""Code of the user, named in a pipeline as "module:name".

The module is looked for in the working folder, then among installed packages.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any


def load_target(target: str) -> Any:
    """Import the object that "module:name" names.

    Raises:
        ValueError: Where a part is missing; the message says which one. An error inside the module
            is raised as it is.
    """
    module_name, separator, name = str(target).partition(":")
    if not (separator and module_name and name):
        raise ValueError(
            f"target {target!r}: expected module:name, "
            "such as my_critic:MyCritic for a class MyCritic in my_critic.py"
        )
    if os.getcwd() not in sys.path:
        # A console script's path begins with its own folder, not with the one it is run in.
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that exists, but imports one that does not, raises the same class.
        if error.name and module_name.startswith(error.name):
            raise ValueError(
                f"target {target!r}: no module {module_name!r} "
                f"in {os.getcwd()} or among installed packages"
            ) from error
        raise
    if not hasattr(module, name):
        raise ValueError(
            f"target {target!r}: module {module_name!r} has no {name!r}; "
            f"it has {_callables(module) or 'nothing that can be called'}"
        )
    return getattr(module, name)


def _callables(module: ModuleType) -> str:
    names = [
        name for name, value in vars(module).items() if not name.startswith("_") and callable(value)
    ]
    return ", ".join(sorted(names))
