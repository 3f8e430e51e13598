"""The log of a run: a line at INFO for each node and each action, with its duration and outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

WORKFLOW: Final = "the_edge_agent.workflow"

_logger: Final = logging.getLogger(WORKFLOW)


@contextmanager
def logged(kind: str, name: str) -> Iterator[None]:
    """Log the block when it ends: its kind (``node`` or ``action``), its name, how long it took and how it ended.

    The line has no arguments, results or messages, because these may be secret.
    """
    began = perf_counter()
    error_type: str | None = None
    try:
        yield
    except BaseException as error:
        error_type = str(getattr(error, "error_type", type(error).__name__))
        raise
    finally:
        if _logger.isEnabledFor(logging.INFO):
            milliseconds = round((perf_counter() - began) * 1000, 3)
            fields: dict[str, Any] = {kind: name, "milliseconds": milliseconds, "error_type": error_type}
            outcome = "succeeded" if error_type is None else f"failed ({error_type})"
            _logger.info("%s %s %s in %.3f ms", kind, name, outcome, milliseconds, extra=fields)


def log_branch(name: str, error_type: str) -> None:
    """Log at WARNING that a branch has failed, because the run goes on."""
    fields = {"branch": name, "error_type": error_type}
    _logger.warning("branch %s failed (%s); the run goes on", name, error_type, extra=fields)


def log_frames(node: str, frames_of_failure: Callable[[], list[str]]) -> None:
    """Log where the code of a node failed, at INFO."""
    if _logger.isEnabledFor(logging.INFO) and (frames := frames_of_failure()):
        _logger.info("where the code of node %s failed, innermost last:", node, extra={"node": node, "frames": frames})
