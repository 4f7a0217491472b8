"""Faces of rooms: names that are imported from their modules when first used, since TRL takes
seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package's face.

    Args:
        package: name of the package whose face this is.
        modules: public name -> the module that defines it.

    Returns:
        A function that imports a name's module and hands the name on. It raises AttributeError for any other name.
    """

    def getattr_of_face(name: str) -> Any:
        if name not in modules:
            raise AttributeError(
                f"module {package!r} has no attribute {name!r}; it has {', '.join(sorted(modules))}"
            )
        return getattr(import_module(modules[name]), name)

    return getattr_of_face
