"""The names of backends and catalogs: built in, registered by a program, or declared as entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from the_edge_agent.memory.contract.extras import naming_extra
from the_edge_agent.memory.core.showing import name_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Factory = Callable[..., Any]


class Registry:
    """Maps case-insensitive names to factories of one kind (backends, or catalogs)."""

    def __init__(self, kind: str, built_in: Mapping[str, str], group: str) -> None:
        """Make a registry.

        Args:
            kind: what the factories make, such as ``LTM backend``; messages use it.
            built_in: for each built-in name ``module:attribute``, which is imported on first use.
            group: the group of entry points in which other packages declare theirs.
        """
        self._kind, self._built_in, self._group = kind, built_in, group
        self._registered: dict[str, Factory] = {}

    def register(self, name: str, factory: Factory) -> None:
        """Register a factory under a name, in place of an earlier one with this name."""
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"a name of an {self._kind} must be non-empty text")
        if not callable(factory):
            raise TypeError(f"a factory of an {self._kind} must be callable")
        self._registered[name.strip().lower()] = factory

    def names(self) -> list[str]:
        """Return the known names, sorted."""
        return sorted({*self._built_in, *self._registered, *(plugin.name.lower() for plugin in self._plugins())})

    def find(self, name: str, url: Any = None) -> Factory:
        """Return the factory of a name; ``url`` is only used for the message of an ImportError.

        Raises:
            ValueError: the name is unknown; the message lists the known names.
            ImportError: an optional dependency is missing; the message names the extra that the URL needs.
        """
        plain_name = name.strip().lower() if isinstance(name, str) else ""
        if plain_name in self._registered:
            return self._registered[plain_name]
        if plain_name in self._built_in:
            module, _, attribute = self._built_in[plain_name].partition(":")
            try:
                factory: Factory = getattr(import_module(module), attribute)
            except ImportError as error:
                raise ImportError(naming_extra(error, url)) from error
            return factory
        for plugin in self._plugins():
            if plugin.name.lower() == plain_name:
                loaded: Factory = plugin.load()
                return loaded
        raise ValueError(f"unknown {self._kind}{name_of(name)}; known: {', '.join(self.names())}")

    def _plugins(self) -> Iterable[EntryPoint]:
        from importlib.metadata import entry_points  # this import takes as long as the rest of the package

        return entry_points(group=self._group)
