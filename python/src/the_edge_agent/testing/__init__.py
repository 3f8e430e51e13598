"""The contracts of long-term memory and of its catalog as pytest suites, for any backend.

See ``LTMContract`` and ``CatalogContract``. They need only pytest. ``the_edge_agent.testing.differential`` is a program
that tests a database without pytest.
"""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from the_edge_agent.testing.catalog import CatalogContract
    from the_edge_agent.testing.ltm import LTMContract

__all__ = ["CatalogContract", "LTMContract"]

_MODULES = {"CatalogContract": "catalog", "LTMContract": "ltm"}

if "pytest" in sys.modules:
    # pytest must know these modules before they are imported; then failed assertions show the values.
    _names = (f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__) if not module.ispkg)
    sys.modules["pytest"].register_assert_rewrite(*_names)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
