"""Which module may import which: the layout of the package, read from its sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import the_edge_agent

SOURCE = Path(the_edge_agent.__file__).parent
PACKAGE = "the_edge_agent"

# module or package: the only parts of ours that it may import (longest match counts)
MAY_IMPORT = {
    "memory": ["memory"],
    "memory.results": [],
    "memory.showing": [],
    "memory.names": [],
    "memory.codec": ["memory.results"],
    "memory.validation": ["memory.showing", "memory.results"],
    "memory.text": ["memory.results", "memory.validation", "memory.languages"],
    "memory.languages": ["memory.results"],
    "memory.queries": ["memory.languages", "memory.results", "memory.text", "memory.validation"],
    "memory.filters": ["memory.results", "memory.codec"],
    "memory.operations": ["memory.results", "memory.codec", "memory.text", "memory.validation", "memory.languages"],
    "memory.transaction": ["memory.operations", "memory.results"],
    "memory.layouts": ["memory.results", "memory.languages"],
    "memory.extras": [],
    "memory.certificates": ["memory.results"],
    "memory.registry": ["memory.extras", "memory.showing"],
    "memory.sockets": [],
    "memory.tickets": [],
    "memory.in_time": [],
    "memory.poolers": [],
    "memory.postgres_sessions": [],
    "memory.forks": ["memory.results"],
    "memory.writes": ["memory.operations", "memory.results"],
    "memory.meanings": ["memory.poolers", "memory.results"],
    "memory.damage": ["memory.codec", "memory.filters", "memory.results", "memory.text", "memory.validation"],
    "memory.questions": [
        "memory.plan",
        "memory.damage",
        "memory.filters",
        "memory.languages",
        "memory.queries",
        "memory.results",
        "memory.text",
    ],
    "memory.base": [
        "memory.names",
        "memory.damage",
        "memory.operations",
        "memory.registry",
        "memory.transaction",
        "memory.results",
        "memory.validation",
        "memory.languages",
        "memory.queries",
        "memory.text",
    ],
    "memory.catalog": ["memory.names", "memory.showing", "memory.registry", "memory.results"],
    "memory.tracking": [
        "memory.catalog",
        "memory.codec",
        "memory.damage",
        "memory.operations",
        "memory.results",
        "memory.validation",
    ],
    "memory.config": ["memory.base", "memory.catalog", "memory.results"],
    "memory.blobs": ["memory.results", "memory.validation"],
    "memory.ledger": [
        "memory.base",
        "memory.catalog",
        "memory.damage",
        "memory.config",
        "memory.operations",
        "memory.results",
        "memory.codec",
    ],
    "memory.database_backend": [
        "memory.plan",
        "memory.showing",
        "memory.base",
        "memory.catalog",
        "memory.damage",
        "memory.ledger",
        "memory.operations",
        "memory.results",
        "memory.transaction",
        "memory.validation",
        "memory.filters",
        "memory.languages",
        "memory.queries",
        "memory.questions",
        "memory.text",
    ],
    "memory.sql": [
        "memory.writes",
        "memory.validation",
        "memory.certificates",
        "memory.extras",
        "memory.plan",
        "memory.showing",
        "memory.sql",
        "memory.layouts",
        "memory.sockets",
        "memory.tickets",
        "memory.catalog",
        "memory.damage",
        "memory.operations",
        "memory.tracking",
        "memory.meanings",
        "memory.results",
        "memory.codec",
        "memory.text",
        "memory.filters",
        "memory.languages",
    ],
    "memory.sql.column_types": ["memory.sql.dialects", "memory.codec", "memory.validation"],
    "memory.sql.options": ["memory.showing", "memory.sql.url", "memory.results", "memory.validation"],
    "memory.sql.search": [
        "memory.plan",
        "memory.damage",
        "memory.sql",
        "memory.sql.deadlines",
        "memory.codec",
        "memory.filters",
        "memory.text",
        "memory.validation",
        "memory.languages",
        "memory.questions",
    ],
    "memory.sql.facts": ["memory.sql", "memory.layouts", "memory.validation"],
    "memory.sql.deadlines": ["memory.in_time"],
    "memory.sql.batches": [],
    "memory.sql.errors": ["memory.meanings", "memory.poolers", "memory.results", "memory.sql.deadlines"],
    "memory.sql.prepared": [],
    "memory.sql.dialects": [
        "memory.plan",
        "memory.sql.prepared",
        "memory.sql.dialects.base",
        "memory.sql.dialects.conditions",
        "memory.sql.dialects.newest",
        "memory.sql.dialects.texts",
        "memory.sql.dialects.probing",
        "memory.sql.dialects.upserts",
        "memory.results",
        "memory.codec",
        "memory.filters",
        "memory.text",
        "memory.validation",
    ],
    "memory.sql.dialects.base": [
        "memory.validation",
        "memory.sql.dialects.conditions",
        "memory.sql.dialects.texts",
        "memory.sql.dialects.upserts",
        "memory.sockets",
    ],
    "memory.sql.dialects.newest": ["memory.plan", "memory.text"],
    "memory.sql.dialects.upserts": ["memory.sql.errors", "memory.sql.prepared"],
    "memory.sql.dialects.probing": ["memory.sql.errors"],
    "memory.sql.dialects.mysql": [
        "memory.sql.dialects.base",
        "memory.sql.dialects.conditions",
        "memory.sql.dialects.mysql_search",
        "memory.sql.dialects.mysql_sessions",
        "memory.sql.dialects.mysql_words",
        "memory.sql.dialects.probing",
        "memory.sql.dialects.texts",
        "memory.sql.dialects.upserts",
        "memory.sql.deadlines",
        "memory.sql.prepared",
        "memory.codec",
        "memory.results",
        "memory.filters",
        "memory.validation",
    ],
    "memory.sql.dialects.mysql_search": [
        "memory.plan",
        "memory.sql.dialects.mysql_words",
        "memory.sql.dialects.newest",
        "memory.sql.dialects.texts",
        "memory.text",
    ],
    "memory.sql.dialects.mysql_words": ["memory.sql.dialects.base", "memory.results", "memory.text"],
    "memory.sql.dialects.mariadb": [
        "memory.sql.dialects.mysql",
        "memory.sql.dialects.conditions",
        "memory.sql.dialects.upserts",
        "memory.filters",
        "memory.validation",
    ],
    "memory.sql.dialects.sqlite": [
        "memory.meanings",
        "memory.showing",
        "memory.forks",
        "memory.sqlite_damage",
        "memory.sql.errors",
        "memory.sql.dialects.base",
        "memory.sql.dialects.conditions",
        "memory.sql.dialects.probing",
        "memory.sql.dialects.sqlite_search",
        "memory.sql.dialects.texts",
        "memory.sql.dialects.upserts",
        "memory.sql.deadlines",
        "memory.results",
        "memory.sqlite_files",
        "memory.sqlite_index",
        "memory.sqlite_settings",
    ],
    "memory.sql.dialects.sqlite_search": [
        "memory.plan",
        "memory.sql.dialects.conditions",
        "memory.sql.dialects.newest",
        "memory.sql.dialects.texts",
        "memory.filters",
        "memory.sqlite_index",
        "memory.text",
    ],
    "memory.sql.dialects.postgresql": [
        "memory.postgres_sessions",
        "memory.plan",
        "memory.sql.dialects.base",
        "memory.sql.dialects.conditions",
        "memory.sql.dialects.newest",
        "memory.sql.dialects.probing",
        "memory.sql.dialects.texts",
        "memory.sql.dialects.upserts",
        "memory.codec",
        "memory.filters",
        "memory.poolers",
        "memory.postgres_refusals",
        "memory.postgres_index",
        "memory.results",
        "memory.text",
        "memory.validation",
    ],
    "memory.sql.dialects.cockroachdb": [
        "memory.postgres_sessions",
        "memory.sql.dialects.base",
        "memory.sql.dialects.postgresql",
        "memory.validation",
    ],
    "memory.sql.dialects.duckdb": [
        "memory.results",
        "memory.sqlite_files",
        "memory.sql.deadlines",
        "memory.sql.dialects.base",
    ],
    "memory.sql.dialects.firebird": ["memory.results", "memory.sql.dialects.base", "memory.validation"],
    "memory.catalog_sqlalchemy": [
        "memory.damage",
        "memory.sql",
        "memory.tracking",
        "memory.catalog",
        "memory.results",
        "memory.codec",
        "memory.filters",
        "memory.validation",
    ],
    "memory.native_rows": [
        "memory.damage",
        "memory.codec",
        "memory.filters",
        "memory.results",
        "memory.text",
        "memory.tracking",
        "memory.validation",
    ],
    "memory.sqlite_index": ["memory.plan", "memory.text"],
    "memory.sqlite_files": ["memory.results"],
    "memory.sqlite_settings": [],
    "memory.sqlite_damage": [],
    "memory.sqlite_database": [
        "memory.forks",
        "memory.layouts",
        "memory.results",
        "memory.sqlite_damage",
        "memory.sqlite_files",
        "memory.sqlite_index",
        "memory.sqlite_settings",
        "memory.tickets",
        "memory.validation",
        "memory.languages",
    ],
    "memory.sqlite_search": [
        "memory.plan",
        "memory.codec",
        "memory.damage",
        "memory.filters",
        "memory.languages",
        "memory.native_rows",
        "memory.questions",
        "memory.sqlite_database",
        "memory.sqlite_index",
        "memory.text",
    ],
    "memory.catalog_sqlite": [
        "memory.damage",
        "memory.native_rows",
        "memory.sqlite_database",
        "memory.catalog",
        "memory.codec",
        "memory.filters",
        "memory.operations",
        "memory.results",
        "memory.tracking",
        "memory.validation",
    ],
    "memory.sqlite": [
        "memory.plan",
        "memory.damage",
        "memory.native_rows",
        "memory.sqlite_database",
        "memory.sqlite_index",
        "memory.catalog_sqlite",
        "memory.database_backend",
        "memory.catalog",
        "memory.codec",
        "memory.filters",
        "memory.ledger",
        "memory.operations",
        "memory.results",
        "memory.text",
        "memory.validation",
        "memory.languages",
        "memory.questions",
        "memory.sqlite_search",
    ],
    "memory.plan": ["memory.damage", "memory.text"],
    "memory.postgres_index": ["memory.text"],
    "memory.postgres_schema": ["memory.layouts", "memory.results"],
    "memory.postgres_errors": ["memory.meanings", "memory.poolers", "memory.results"],
    "memory.postgres_url": ["memory.certificates", "memory.meanings", "memory.showing", "memory.results"],
    "memory.postgres_refusals": ["memory.meanings"],
    "memory.postgres_pool": [
        "memory.postgres_sessions",
        "memory.in_time",
        "memory.postgres_errors",
        "memory.postgres_refusals",
        "memory.postgres_url",
        "memory.results",
        "memory.sockets",
        "memory.tickets",
    ],
    "memory.postgres_database": [
        "memory.writes",
        "memory.showing",
        "memory.postgres_errors",
        "memory.postgres_pool",
        "memory.postgres_schema",
        "memory.postgres_url",
        "memory.codec",
        "memory.filters",
        "memory.results",
        "memory.validation",
        "memory.languages",
        "memory.layouts",
    ],
    "memory.catalog_postgres": [
        "memory.damage",
        "memory.native_rows",
        "memory.postgres_database",
        "memory.catalog",
        "memory.codec",
        "memory.filters",
        "memory.operations",
        "memory.results",
        "memory.tracking",
        "memory.validation",
    ],
    "memory.postgres_search": [
        "memory.plan",
        "memory.damage",
        "memory.results",
        "memory.native_rows",
        "memory.postgres_index",
        "memory.postgres_database",
        "memory.codec",
        "memory.filters",
        "memory.text",
        "memory.languages",
        "memory.questions",
    ],
    "memory.postgres": [
        "memory.writes",
        "memory.plan",
        "memory.damage",
        "memory.postgres_search",
        "memory.native_rows",
        "memory.postgres_database",
        "memory.catalog_postgres",
        "memory.database_backend",
        "memory.catalog",
        "memory.codec",
        "memory.filters",
        "memory.ledger",
        "memory.operations",
        "memory.results",
        "memory.text",
        "memory.validation",
        "memory.languages",
        "memory.questions",
    ],
    "memory.sql.large_values": [
        "memory.sql",
        "memory.damage",
        "memory.blobs",
        "memory.operations",
        "memory.results",
        "memory.codec",
    ],
    "memory.sqlalchemy_backend": [
        "memory.writes",
        "memory.plan",
        "memory.damage",
        "memory.sql",
        "memory.database_backend",
        "memory.blobs",
        "memory.catalog",
        "memory.ledger",
        "memory.operations",
        "memory.results",
        "memory.codec",
        "memory.filters",
        "memory.text",
        "memory.validation",
        "memory.languages",
        "memory.questions",
    ],
    "memory.self_test": ["memory.base", "memory.results"],
    "memory.check": ["memory.damage", "memory.sql", "memory.self_test", "memory.sqlalchemy_backend", "memory.results"],
    "testing": ["memory", "testing"],
    "workflow": ["workflow", "memory"],
    "cli": ["cli", "workflow", "memory", ""],
}
STANDARD_AND_OURS_ONLY = [
    "memory.results",
    "memory.codec",
    "memory.validation",
    "memory.text",
    "memory.filters",
    "memory.sockets",
    "memory.native_rows",
]


def modules() -> list[str]:
    files = sorted(SOURCE.rglob("*.py"))
    names = [".".join(file.relative_to(SOURCE).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__").replace("__init__", "") for name in names]


def imported(module: str) -> set[str]:
    """Return the full names of the modules that a module's source imports."""
    base = SOURCE.joinpath(*module.split(".")) if module else SOURCE
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names if _is_module(node, name)}
    return found


def _is_module(node: ast.ImportFrom, name: ast.alias) -> bool:
    if node.module is None or not node.module.startswith(PACKAGE):
        return False
    path = SOURCE.joinpath(*node.module.split(".")[1:], name.name)
    return path.is_dir() or path.with_suffix(".py").exists()


def rule_of(module: str) -> list[str] | None:
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (rule := MAY_IMPORT.get(".".join(parts[:length]))) is not None:
            return rule
    return None


@pytest.mark.parametrize("module", [name for name in modules() if name and not name.endswith(".dialects")])
def test_imports_point_downward(module: str) -> None:
    allowed = rule_of(module)
    assert allowed is not None, f"{module} has no rule in MAY_IMPORT"
    for name in imported(module):
        if name == PACKAGE or name.startswith(PACKAGE + "."):
            ours = name.removeprefix(PACKAGE).removeprefix(".")
            is_allowed = any(ours == part or ours.startswith(part + ".") for part in allowed if part)
            assert is_allowed or (ours == "" and "" in allowed), f"{module} imports {ours}"


@pytest.mark.parametrize("module", STANDARD_AND_OURS_ONLY)
def test_what_native_backends_share_needs_no_third_party(module: str) -> None:
    for name in imported(module):
        assert name.startswith(PACKAGE) or name.partition(".")[0] in sys.stdlib_module_names


def test_workflows_use_public_names_of_the_memory_only() -> None:
    for module in modules():
        if module.startswith(("workflow", "cli")):
            used = {name for name in imported(module) if name.startswith(f"{PACKAGE}.memory")}
            assert used <= {f"{PACKAGE}.memory"}, f"{module} looks inside the memory: {sorted(used)}"


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "{package}":
            raise ModuleNotFoundError("No module named '{package}'", name="{package}")
sys.meta_path.insert(0, Absent())
"""
WITHOUT_SQLALCHEMY = WITHOUT.format(package="sqlalchemy")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_memory_imports_without_sqlalchemy() -> None:
    code = "import the_edge_agent.memory as m; print(m.SQLALCHEMY_AVAILABLE, m.get_registered_backends())"
    assert run_python(WITHOUT_SQLALCHEMY + code) == "False ['postgres', 'sqlalchemy', 'sqlite']"


@pytest.mark.parametrize(
    "asking",
    ["m.SQLAlchemyBackend", "m.create_ltm_backend('sqlalchemy', url='sqlite://')"],
)
def test_without_sqlalchemy_the_backend_names_the_extra(asking: str) -> None:
    code = f"import the_edge_agent.memory as m\ntry: {asking}\nexcept ImportError as error: print(error)"
    assert "the-edge-agent[sqlalchemy]" in run_python(WITHOUT_SQLALCHEMY + code)


@pytest.mark.parametrize("make", ["create_ltm_backend", "create_catalog_backend"])
@pytest.mark.parametrize(
    ("url", "extra"),
    [("postgres://h/d", "postgres"), ("mysql+mysqldb://h/d", "mysqlclient"), ("oracle://h/d", "sqlalchemy")],
)
def test_so_does_the_function_that_makes_one_and_it_is_the_extra_of_the_url(make: str, url: str, extra: str) -> None:
    code = f"import the_edge_agent.memory as m\ntry: m.{make}(url='{url}')\nexcept ImportError as error: print(error)"
    assert f"the-edge-agent[{extra}]" in run_python(WITHOUT_SQLALCHEMY + code)


@pytest.mark.parametrize(
    "config",
    ["m.parse_ltm_config({'ltm': {'url': 'mariadb://h/d'}})", "m.parse_catalog_config({'url': 'mariadb://h/d'})"],
)
def test_so_does_a_configuration(config: str) -> None:
    code = f"import the_edge_agent.memory as m\ntry: {config}\nexcept m.LTMError as failure: print(failure.result)"
    found = run_python(WITHOUT_SQLALCHEMY + code)
    assert "dependency_missing" in found
    assert "the-edge-agent[mysql]" in found


def test_without_sqlalchemy_a_configuration_names_the_extra() -> None:
    code = (
        "import the_edge_agent.memory as m\n"
        "try: m.parse_ltm_config({'ltm': {'url': 'sqlite://'}})\n"
        "except m.LTMError as failure: print(failure.result)"
    )
    found = run_python(WITHOUT_SQLALCHEMY + code)
    assert "dependency_missing" in found
    assert "the-edge-agent[sqlalchemy]" in found


def test_without_sqlalchemy_there_is_memory_in_sqlite_and_in_workflows() -> None:
    code = (
        "import the_edge_agent as t, the_edge_agent.memory as m\n"
        "with m.SQLiteBackend(catalog='sqlite') as memory: print(memory.store('k', 1)['created'])\n"
        "with t.YAMLEngine() as engine: print(engine.ltm_backend.store('k', 1)['created'])\n"
    )
    assert run_python(WITHOUT_SQLALCHEMY + code).split() == ["True", "True"]


@pytest.mark.parametrize(
    "asking",
    [
        "m.PostgresBackend",
        "m.PostgresCatalog",
        "m.create_ltm_backend('postgres', url='postgresql://h/d')",
        "m.create_catalog_backend('postgres', url='postgresql://h/d')",
        "m.parse_ltm_config({'ltm': {'backend': 'postgres', 'url': 'postgresql://h/d'}})",
    ],
)
def test_without_psycopg_the_backend_names_the_extra(asking: str) -> None:
    code = f"import the_edge_agent.memory as m\ntry: {asking}\nexcept (ImportError, m.LTMError) as error: print(error)"
    assert "the-edge-agent[postgres]" in run_python(WITHOUT.format(package="psycopg") + code)


def test_without_sqlalchemy_there_is_memory_in_postgresql() -> None:
    code = "import the_edge_agent.memory as m\nprint(m.PostgresBackend('postgresql://h/d', lazy=True))"
    assert run_python(WITHOUT_SQLALCHEMY + code) == "PostgresBackend('postgresql://h:5432/d')"


def test_importing_the_memory_loads_neither_sqlalchemy_nor_the_workflow_engine() -> None:
    heavy = {"sqlalchemy", "psycopg", "jinja2", "yaml", "typer"}
    code = f"import sys, the_edge_agent.memory; print(sorted({heavy} & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_an_unknown_name_of_the_memory_is_an_attribute_error() -> None:
    import the_edge_agent.memory as memory

    with pytest.raises(AttributeError, match="Nonsense"):
        _ = memory.Nonsense


OLD_NAMES = {
    "the_edge_agent": (
        "LTMBackend LongTermMemoryBackend PostgresBackend SQLAlchemyBackend SQLiteBackend create_ltm_backend "
        "expand_env_vars get_registered_backends parse_backend_config register_backend"
    ),
    "the_edge_agent.memory.base": "expand_env_vars expand_ltm_config parse_backend_config parse_ltm_config",
    "the_edge_agent.memory.catalog": "parse_catalog_config",
}


@pytest.mark.parametrize("module", OLD_NAMES)
def test_names_that_programs_import_from_another_place_are_those_of_the_memory(module: str) -> None:
    import the_edge_agent.memory as memory

    for name in OLD_NAMES[module].split():
        assert getattr(import_module(module), name) is getattr(memory, name)
    with pytest.raises(AttributeError, match=f"'{module}' has no attribute 'Nonsense'"):
        _ = import_module(module).Nonsense


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = "import sys, the_edge_agent; print([name for name in sys.modules if name.startswith('the_edge_agent.')])"
    assert run_python(code) == "[]"
