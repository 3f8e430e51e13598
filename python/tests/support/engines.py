"""Code that the tests of engines and of their options share."""

from __future__ import annotations

from typing import Any

import pytest

from the_edge_agent.memory import LTMError, SQLAlchemyBackend

CANARY = "c4nary-s3cret"

own_dialect = pytest.mark.targets(portable=False, in_memory=False)


def refused(**options: Any) -> str:
    with pytest.raises(LTMError) as raised:
        SQLAlchemyBackend(**options)
    assert raised.value.error_type == "configuration_error"
    return str(raised.value)
