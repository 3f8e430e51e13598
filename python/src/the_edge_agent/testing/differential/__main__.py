"""The command line of the differential test."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import create_engine, pool

from the_edge_agent.memory import LTMError
from the_edge_agent.testing.differential.places import Place
from the_edge_agent.testing.differential.run import run

_OPERATIONS: Final = 2_000
_EPILOG: Final = """\
Exit codes: 0 no difference; 1 a difference, which is reported; 2 wrong usage, or the database cannot be used.
Only tables of its own are used, and dropped at the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    given = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that tables are dropped
    operations = given.operations if given.operations or given.seconds else _OPERATIONS
    try:
        outcome = run(
            _place(given),
            seed=given.seed,
            operations=operations,
            seconds=given.seconds,
            with_catalog=given.catalog,
        )
    except LTMError as failure:
        _print(f"{failure.error_type}: {failure}", sys.stderr)
        return 2
    _print(str(outcome), sys.stdout)
    return 1 if outcome.difference else 0


def _place(given: argparse.Namespace) -> Place:
    options = {"native": given.native, "with_catalog": given.catalog, "options": given.options}
    if given.engine is None:
        return Place(given.url, **options)
    arguments = dict(given.engine)
    if "poolclass" in arguments:
        arguments["poolclass"] = getattr(pool, arguments["poolclass"])
    return Place(None, engine=create_engine(given.url, **arguments), **options)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m the_edge_agent.testing.differential",
        description="Make random calls on a database and in a model of the documentation, and compare the answers.",
        epilog=_EPILOG,
    )
    parser.add_argument("--url", default=os.environ.get("TEA_URL"), help="of the database; also in TEA_URL")
    parser.add_argument("--operations", type=int, help=f"how many calls ({_OPERATIONS:,} unless told)")
    parser.add_argument("--seconds", type=float, help="for how long")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9), help="makes the same calls again")
    parser.add_argument("--native", action="store_true", help="the class without SQLAlchemy, beside that with it")
    parser.add_argument("--catalog", action="store_true", help="with the catalog on the same database")
    parser.add_argument("--options", type=_object, default={}, help="options of the memory, as a JSON object")
    parser.add_argument("--engine", type=_object, help="use an engine made with these arguments, a JSON object")
    given = parser.parse_args(argv)
    if not given.url:
        parser.error("give --url or set TEA_URL")
    return given


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return found


def _print(text: str, stream: Any) -> None:
    print(text.encode("utf-8", "backslashreplace").decode(), file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main())
