"""The contracts of long-term memory and of its catalog as pytest suites, to be run on any backend.

See ``LTMContract`` and ``CatalogContract``. They need pytest and nothing else.
"""

from __future__ import annotations

import pkgutil

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

# Registered before, so that failures show values.
from the_edge_agent.testing.catalog import CatalogContract  # noqa: E402
from the_edge_agent.testing.ltm import LTMContract  # noqa: E402

__all__ = ["CatalogContract", "LTMContract"]
