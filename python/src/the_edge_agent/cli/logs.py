"""The options ``-v``, ``-vv`` and ``--log-json``: what the package logs goes to stderr, as text or as JSON Lines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Final

from the_edge_agent.cli.terminal import one_line, printable, printable_json

_OURS: Final = "the_edge_agent"
_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)  # by the number of -v
_OF_EVERY_RECORD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


class _ToStderr(logging.StreamHandler):  # type: ignore[type-arg]  # it takes none at run time before Python 3.11
    """Writes to what is ``sys.stderr`` at the time of the record."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, stream: Any) -> None:
        pass

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of logging
        """Do nothing: a closed stderr must not end a command."""


class _AsText(logging.Formatter):
    """A line a record: time, level, logger and message. The frames of user code follow on lines of their own."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc).strftime("%H:%M:%S.%f")[:-3]
        lines = [one_line(f"{at} {record.levelname} {record.name}: {record.getMessage()}")]
        lines += map(one_line, getattr(record, "frames", ()))
        if record.exc_info:
            lines.append(printable(self.formatException(record.exc_info)))
        return "\n".join(lines)


class _AsJSON(logging.Formatter):
    """A JSON object a record: time, level, logger, message and the fields of the record."""

    def format(self, record: logging.LogRecord) -> str:
        shown: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        shown |= {name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD | shown.keys()}
        if record.exc_info:
            shown["exception"] = self.formatException(record.exc_info)
        return printable_json(json.dumps(shown, ensure_ascii=False, default=str))


def show_logs(verbosity: int, *, as_json: bool) -> Callable[[], None]:
    """Send the log of the package to stderr.

    Args:
        verbosity: 0 for warnings, 1 for the nodes and actions of agents too, 2 for each call of a memory too.
        as_json: whether to write a JSON object a line.

    Returns:
        A function that ends this.
    """
    logger, handler = logging.getLogger(_OURS), _ToStderr()
    handler.setFormatter(_AsJSON() if as_json else _AsText())
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(_LEVELS[min(verbosity, 2)])
    logger.propagate = False  # an agent may configure logging too

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates

    return end
