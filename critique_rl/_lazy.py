"""Lazy faces: a package imports the module of a public name when the name is first used. Also
heavy imports without looking for garbage, and advice where an optional package is missing.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def lazy(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package.

    Args:
        package: name of the package.
        modules: public name -> the module that defines it.

    Returns:
        A function of a name. It imports the name's module and returns the attribute.
    """

    # TRL takes seconds to import, and `critique-rl --help` must not wait for it.
    def getattr_of_face(name: str) -> Any:
        """Raises AttributeError for a name that the package does not have."""
        if name not in modules:
            names = ", ".join(sorted(modules))
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {names}")
        return getattr(import_module(modules[name]), name)

    return getattr_of_face


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Around the import of torch, transformers and TRL: no garbage is looked for.

    Half a million objects come of it and stay for good. Looking for garbage among them costs a
    fifth of the time to a run's first step, here and where accelerate asks for it. Nothing is done
    where torch is there already, since other objects would then be kept for good too.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def extra_advice(extra: str) -> str:
    """How to install an extra of this package, which no index has under this name.

    Args:
        extra: its name in pyproject.toml.
    """
    return (
        f"run: pip install '.[{extra}]' in the checkout of critique_rl, or pip install "
        f"'./critique_rl-VERSION-py3-none-any.whl[{extra}]' with its wheel"
    )
