"""End a command by an exception when a signal arrives, so that it cleans up."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_ENDING: Final = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make signals end the command by an exception, so that it cleans up. Ignored signals stay ignored (nohup)."""
    before = {sent: signal.getsignal(sent) for sent in _ENDING if signal.getsignal(sent) is not signal.SIG_IGN}
    try:
        for sent in before:
            signal.signal(sent, _end)
        yield
    finally:
        for sent, handler in before.items():
            signal.signal(sent, handler)


def _end(sent: int, _: Any) -> None:
    sys.exit(128 + sent)
