"""The contract of long-term memory as a pytest suite, to be run on any backend.

See ``LTMContract``. It needs pytest and nothing else.
"""

from __future__ import annotations

import pkgutil

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from the_edge_agent.testing.ltm import LTMContract  # noqa: E402 - registered before, so that failures show values

__all__ = ["LTMContract"]
