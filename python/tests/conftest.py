"""The set-up of our tests: chooses tests and databases, and has the fixtures that all tests share."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine, create_engine

from databases import (
    Database,
    Databases,
    Target,
    UnknownDatabaseError,
    chosen_targets,
    fails_the_run,
    is_named,
    not_tested,
    waiting,
    waits_today,
)
from faults.clusters import VARIABLES, present
from limits import LIMITS
from run_length import LONG, SEED, described, of_this_run
from the_edge_agent.testing import CatalogContract, LTMContract
from the_edge_agent.testing.workers import shared_pool
from tls_servers import TLSServers

OF_POOLERS = ("transactions", "versions")
OF_DRIVERS = ("entries", "transactions", "versions", "test_ltm_contract")
OF_OTHERS = (*OF_DRIVERS, "exactness", "expiry", "touches", "imports", "snapshots", "changes")
OF_VARIANTS = (
    *(*OF_OTHERS, "batches", "delete_all", "indexing", "pages", "namespaces", "namespace_lists"),
    *("closing", "concurrency", "test_catalog_contract"),
)

settings.register_profile(
    "tea",
    max_examples=of_this_run(25, 1000),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tea")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give Hypothesis the seed of this run; refuse a choice of databases that are not available."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(SEED)
    try:
        chosen_targets()
    except UnknownDatabaseError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_report_header() -> list[str]:
    """Say how to repeat this run, and which databases do not run the contract today."""
    return [described(), waiting()]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from the million objects that the collection of the tests leaves for the whole run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that needs a database once for every target; a contract class only on the targets that fit it.

    Three kinds of targets are special: native classes, the portable dialect, and other databases and drivers. A test
    runs on such a kind only if its marker ``targets`` names the kind: with a value, such as ``native=True``, to choose
    it, or without a value, to run on this kind as well.
    """
    if "cluster" in metafunc.fixturenames:
        names = [name for marker in metafunc.definition.iter_markers("cluster") for name in marker.args] or VARIABLES
        metafunc.parametrize("cluster", [name for name in names if name in present()], scope="module")
    if "target" not in metafunc.fixturenames:
        return
    shared = getattr(metafunc.cls, "shared_by_processes", None)
    targets = [target for target in _targets() if shared is None or shared is not target.in_memory]
    markers = [*metafunc.definition.iter_markers("targets")]
    for kind in ("native", "portable", "other"):
        if not any(kind in (*marker.args, *marker.kwargs) for marker in markers):
            targets = [target for target in targets if not getattr(target, kind)]
    for marker in markers:
        targets = [target for target in targets if all(getattr(target, k) == v for k, v in marker.kwargs.items())]
    metafunc.parametrize("target", targets, ids=[target.name for target in targets], scope="session")


@cache
def _targets() -> list[Target]:
    return chosen_targets()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests without a chosen target, and tests of features that a class says its backend does not have.

    A test that is listed in ``LIMITS`` for another database must fail there.
    """
    left_out = [item for item in items if not _applies(item)]
    items[:] = [item for item in items if _applies(item)]
    config.hook.pytest_deselected(items=left_out)
    for item in items:
        if reason := _limit(item):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
        if _is_slow(item):
            item.add_marker("slow")
        target = _target_of(item)
        if target is not None and target.server:
            item.add_marker("server")
        if target is not None and (target.server or target.module is not None):
            item.add_marker("driver")


def _applies(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return True
    if set(getattr(item.cls, "leaves_out", ())) & set(item.fixturenames):
        return False
    if not LONG and getattr(item.cls, "leaves_out_slow", False) and _takes_long(item):
        return False
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if "cluster" in parameters:
        return isinstance(parameters["cluster"], str)
    if "target" not in parameters:
        return True
    target = parameters["target"]
    return isinstance(target, Target) and (not target.runs_a_part or is_named(target) or _is_short(item, target))


def _is_short(item: pytest.Function, target: Target) -> bool:
    """Return whether a rule runs on a target that runs only a part of the rules, although the target is not named.

    Rules that take long do not run there. Fewer rules run with another driver or a pooler, because these have their
    own tests. Similar targets take turns, a day each. All rules run on a target that is named, and in the long form.
    """
    is_of_contract = item.cls is not None and issubclass(item.cls, (LTMContract, CatalogContract))
    if LONG or (not is_of_contract and (target.pooler or target.in_memory)):
        return True
    if waits_today(target):
        return False
    owners = [owner for owner in item.cls.__mro__ if item.originalname in vars(owner)] if item.cls else []
    rules = owners[0].__module__.rpartition(".")[2].removeprefix("catalog_") if owners else ""
    is_variant = target.in_memory or target.portable
    part = OF_POOLERS if target.pooler else OF_DRIVERS if target.driver else OF_VARIANTS if is_variant else OF_OTHERS
    return rules in part and not _takes_long(item)


def _is_slow(item: pytest.Item) -> bool:
    """Return whether a test is slow: it takes long, or it repeats a rule on a further target of the same family."""
    target = _target_of(item)
    return _takes_long(item) or (target is not None and (target.in_memory or target.portable or target.other))


def _target_of(item: pytest.Item) -> Target | None:
    target = item.callspec.params.get("target") if hasattr(item, "callspec") else None
    return target if isinstance(target, Target) else None


def _takes_long(item: pytest.Item) -> bool:
    return getattr(getattr(item, "function", None), "is_slow", False)


def _limit(item: pytest.Item) -> str | None:
    target = _target_of(item)
    if target is None or not isinstance(item, pytest.Function):
        return None
    return LIMITS.get(target.name, {}).get(item.originalname)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The databases of this session."""
    databases = Databases()
    yield databases
    databases.drop()


@pytest.fixture(scope="session")
def tls() -> Iterator[TLSServers]:
    """Servers that take encrypted connections only."""
    servers = TLSServers()
    yield servers
    servers.stop()


@pytest.fixture(scope="session")
def workers(pytestconfig: pytest.Config) -> ProcessPoolExecutor:
    """Processes that share nothing with this one; started once, because that takes longer than most tests."""
    return shared_pool(pytestconfig)


@pytest.fixture
def database(target: Target, databases: Databases, tmp_path: Path) -> Database:
    """An empty database; the test runs once for each target."""
    return databases.empty(target, tmp_path)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """An engine that a caller has created on the database."""
    engine = create_engine(database.url)
    yield engine
    engine.dispose()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail in CI if a database was not available."""
    if exitstatus == pytest.ExitCode.OK and fails_the_run():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Print which databases were not tested, as the last line."""
    yield
    if line := not_tested():
        terminalreporter.write_line(line, red=fails_the_run(), yellow=not fails_the_run())


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Collect objects that an interrupt has left unfinished, so that their warnings appear in no later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
