"""Code of the user, named in a pipeline as "module:name" or "folder/file.py:name".

The module is looked for in the working folder, then among installed packages.
"""

from __future__ import annotations

import importlib
import importlib.util
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
        if module_name.endswith(".py"):
            module = _load_file(module_name)
        else:
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


def _load_file(path: str) -> ModuleType:
    """The module of a file, under another name than __main__: what starts a run must stand under
    `if __name__ == "__main__"`.

    Raises:
        ValueError: There is no such file.
    """
    name = f"user_file_{os.path.basename(path).removesuffix('.py')}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not os.path.isfile(path):
        raise ValueError(f"target {path!r}: no such file, from {os.getcwd()}")
    # Its neighbours are imported as where it is run.
    folder = os.path.dirname(os.path.abspath(path))
    if folder not in sys.path:
        sys.path.insert(1, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _callables(module: ModuleType) -> str:
    names = [
        name for name, value in vars(module).items() if not name.startswith("_") and callable(value)
    ]
    return ", ".join(sorted(names))
