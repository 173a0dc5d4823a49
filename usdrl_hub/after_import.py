"""Run an action once a module of another package has been imported, without importing it.

Importing transformers and torch takes seconds, so this package registers its models only once they are imported.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# Actions import modules of both packages, so they run only when no module of either is half imported.
_WATCHED = (__name__.partition(".")[0], "transformers")


def after_import(module: str, action: Callable[[], None]) -> None:
    """Call a function once, when a module has been imported; at once if it already has been.

    The call comes at the end of the outermost import of transformers or of this package, so the function may import
    from both.

    Args:
        module: Full name of a module of transformers.
        action: Called without arguments.
    """
    _finder.actions.append((module, action))
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    _finder.run()


class _Finder(MetaPathFinder):
    def __init__(self) -> None:
        self.actions: list[tuple[str, Callable[[], None]]] = []
        self.here = threading.local()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of the usual finder, with a loader that reports when the module has been executed."""
        if name.partition(".")[0] not in _WATCHED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec

    def execute(self, loader: Loader, module: ModuleType) -> None:
        """Execute a module; after the outermost one, run the waiting actions."""
        self.here.depth = self.depth + 1
        try:
            loader.exec_module(module)
        finally:
            self.here.depth -= 1
        self.run()

    @property
    def depth(self) -> int:
        """How many modules this thread is executing."""
        return getattr(self.here, "depth", 0)

    def run(self) -> None:
        """Run the actions whose modules have been imported."""
        if self.depth:
            return
        for entry in [entry for entry in self.actions if entry[0] in sys.modules]:
            # An action may import modules and so run others; each runs once.
            if entry in self.actions:
                self.actions.remove(entry)
                entry[1]()


class _Loader(Loader):
    """A wrapper of a loader that reports to the finder."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Delegate to the wrapped loader."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, which then shows the wrapped loader as its own."""
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        module.__loader__ = self.loader
        _finder.execute(self.loader, module)


_finder = _Finder()
