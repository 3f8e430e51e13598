"""Which module may import which: the test reads the imports in the sources."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path

import pytest

import the_edge_agent
from absent import WITHOUT, WITHOUT_SQLALCHEMY, run_python

pytestmark = pytest.mark.highest_versions

SOURCE = Path(the_edge_agent.__file__).parent
PACKAGE = "the_edge_agent"

_ABOVE_DRIVERS = ["memory.core", "memory.contract", "memory.database", "memory.sql.driver"]
_ABOVE_DIALECTS = [*_ABOVE_DRIVERS, "memory.sql.dialects"]
# A folder, or a module: the only folders beside itself that it may import from (the longest match counts).
MAY_IMPORT = {
    "memory.core": [],
    "memory.contract": ["memory.core"],
    "memory.database": ["memory.core", "memory.contract"],
    "memory.aio": ["memory.core", "memory.contract"],
    "memory.transfer": ["memory.core", "memory.contract", "memory.sql.driver"],
    "memory.sqlite": ["memory.core", "memory.contract", "memory.database"],
    "memory.postgres": ["memory.core", "memory.contract", "memory.database"],
    "memory.sql.driver": ["memory.core", "memory.contract", "memory.database"],
    "memory.sql.dialects": [*_ABOVE_DRIVERS, "memory.sqlite", "memory.postgres"],
    "memory.sql.schema": _ABOVE_DIALECTS,
    "memory.sql.queries": [*_ABOVE_DIALECTS, "memory.sql.schema", "memory.sql.transactions"],
    "memory.sql": ["memory.core", "memory.contract", "memory.database"],
    "memory.diagnostics": ["memory.core", "memory.contract", "memory.database", "memory.sql"],
    "memory": [],
    "testing": ["memory"],
    "integrations": ["memory"],
    "workflow": ["memory"],
    "workflow.aio": ["workflow", "memory", "memory.aio"],
    "cli": ["workflow", "memory", ""],
}
STANDARD_AND_OURS_ONLY = ("memory.core", "memory.contract", "memory.sqlite")


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


def folder_of(module: str) -> str:
    """Return the longest name in MAY_IMPORT that a module is in."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(name for name in names if name in MAY_IMPORT)


@pytest.mark.parametrize("module", [name for name in modules() if name])
def test_imports_point_downward(module: str) -> None:
    folder = folder_of(module)
    allowed = [*MAY_IMPORT[folder], folder]
    for name in imported(module):
        if name == PACKAGE or name.startswith(PACKAGE + "."):
            ours = name.removeprefix(PACKAGE).removeprefix(".")
            is_allowed = any(ours == part or ours.startswith(part + ".") for part in allowed if part)
            assert is_allowed or (ours == "" and "" in allowed), f"{module} imports {ours}"


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith(STANDARD_AND_OURS_ONLY)])
def test_what_native_backends_share_needs_no_third_party(module: str) -> None:
    for name in imported(module):
        assert name.startswith(PACKAGE) or name.partition(".")[0] in sys.stdlib_module_names


def test_workflows_use_public_names_of_the_memory_only() -> None:
    for module in modules():
        if module.startswith(("workflow", "cli")):
            used = {name for name in imported(module) if name.startswith(f"{PACKAGE}.memory")}
            allowed = {f"{PACKAGE}.memory"}
            if module == "workflow.aio":  # event loops have nothing to do with the memory
                allowed.add(f"{PACKAGE}.memory.aio.loops")
            assert used <= allowed, f"{module} looks inside the memory: {sorted(used)}"


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
