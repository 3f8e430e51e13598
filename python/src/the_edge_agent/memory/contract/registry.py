"""Names of backends and catalogs: built in, registered, or found by entry points."""

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
    """The factories of one kind, by case-insensitive name."""

    def __init__(self, kind: str, built_in: Mapping[str, str], group: str) -> None:
        """Make a registry.

        Args:
            kind: what its factories make, for messages: ``LTM backend``.
            built_in: ``module:attribute`` by name, imported on first use.
            group: of the entry points of third parties.
        """
        self._kind, self._built_in, self._group = kind, built_in, group
        self._registered: dict[str, Factory] = {}

    def register(self, name: str, factory: Factory) -> None:
        """Give a factory a name, over what was registered under it before."""
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"a name of an {self._kind} must be non-empty text")
        if not callable(factory):
            raise TypeError(f"a factory of an {self._kind} must be callable")
        self._registered[name.strip().lower()] = factory

    def names(self) -> list[str]:
        """Return the known names, sorted."""
        return sorted({*self._built_in, *self._registered, *(plugin.name.lower() for plugin in self._plugins())})

    def find(self, name: str, url: Any = None) -> Factory:
        """Return the factory of a name, which is to serve a URL.

        Raises:
            ValueError: an unknown name; the message lists the known ones.
            ImportError: its optional dependency is missing; the message names the extra that the URL needs.
        """
        wanted = name.strip().lower() if isinstance(name, str) else ""
        if wanted in self._registered:
            return self._registered[wanted]
        if wanted in self._built_in:
            module, _, attribute = self._built_in[wanted].partition(":")
            try:
                factory: Factory = getattr(import_module(module), attribute)
            except ImportError as error:
                raise ImportError(naming_extra(error, url)) from error
            return factory
        for plugin in self._plugins():
            if plugin.name.lower() == wanted:
                loaded: Factory = plugin.load()
                return loaded
        raise ValueError(f"unknown {self._kind}{name_of(name)}; known: {', '.join(self.names())}")

    def _plugins(self) -> Iterable[EntryPoint]:
        from importlib.metadata import entry_points  # costs as much as the rest of this package

        return entry_points(group=self._group)
