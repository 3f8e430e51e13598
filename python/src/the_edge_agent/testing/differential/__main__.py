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
The test uses only tables of its own, and drops them at the end."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    args = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # an exception, so that tables are dropped
    operations = args.operations if args.operations or args.seconds else _OPERATIONS
    try:
        outcome = run(
            _place(args),
            seed=args.seed,
            operations=operations,
            seconds=args.seconds,
            with_catalog=args.catalog,
        )
    except LTMError as failure:
        _print(f"{failure.error_type}: {failure}", sys.stderr)
        return 2
    _print(str(outcome), sys.stdout)
    return 1 if outcome.difference else 0


def _place(args: argparse.Namespace) -> Place:
    options = {"native": args.native, "with_catalog": args.catalog, "options": args.options}
    if args.engine is None:
        return Place(args.url, **options)
    arguments = dict(args.engine)
    if "poolclass" in arguments:
        arguments["poolclass"] = getattr(pool, arguments["poolclass"])
    return Place(None, engine=create_engine(args.url, **arguments), **options)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m the_edge_agent.testing.differential",
        description="Make random calls on a database and in a model of the documentation, and compare the answers.",
        epilog=_EPILOG,
    )
    parser.add_argument("--url", default=os.environ.get("TEA_URL"), help="the URL of the database; or set TEA_URL")
    parser.add_argument("--operations", type=int, help=f"how many calls to make (default: {_OPERATIONS:,})")
    parser.add_argument("--seconds", type=float, help="how long to make calls")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9), help="the same seed makes the same calls")
    parser.add_argument("--native", action="store_true", help="also test the class that does not use SQLAlchemy")
    parser.add_argument("--catalog", action="store_true", help="also test the catalog on the same database")
    parser.add_argument("--options", type=_object, default={}, help="options of the memory, as a JSON object")
    parser.add_argument("--engine", type=_object, help="create an engine with these arguments, a JSON object")
    args = parser.parse_args(argv)
    if not args.url:
        parser.error("give --url or set TEA_URL")
    return args


def _object(text: str) -> dict[str, Any]:
    parsed = json.loads(text)
    if not isinstance(parsed, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return parsed


def _print(text: str, stream: Any) -> None:
    print(text.encode("utf-8", "backslashreplace").decode(), file=stream, flush=True)


if __name__ == "__main__":
    sys.exit(main())
