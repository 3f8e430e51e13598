"""From ``settings.ltm`` to a backend: variables, spellings, refusals."""

from __future__ import annotations

import time
from typing import Any

import pytest

from the_edge_agent.memory import (
    LTMBackend,
    LTMError,
    SQLAlchemyBackend,
    create_ltm_backend,
    expand_env_vars,
    expand_ltm_config,
    get_registered_backends,
    parse_backend_config,
    parse_ltm_config,
    register_backend,
)
from the_edge_agent.memory.contract import backend as registry


@pytest.mark.parametrize(
    ("config", "expanded"),
    [
        ("${NAME}", "tea"),
        ("x-${NAME}-y", "x-tea-y"),
        ("${ABSENT:-fallback}", "fallback"),
        ("${EMPTY:-fallback}", "fallback"),
        ("${EMPTY}", ""),
        ("${NUMBER}", 10),
        ("${ABSENT:--3}", -3),
        ("${ABSENT:-2.5}", 2.5),
        ("${ABSENT:-007}", "007"),
        ("${ABSENT:-0}", 0),
        ("${ABSENT:-0.5}", 0.5),
        ("${ABSENT:-true}", True),
        ("${ABSENT:-False}", False),
        ("port ${NUMBER}", "port 10"),
        ("${ABSENT:-sqlite:///./ltm.db}", "sqlite:///./ltm.db"),
        ("${ABSENT:-}", ""),
        ("no variable", "no variable"),
        ("$NAME {NAME}", "$NAME {NAME}"),
        (["${NUMBER}", {"deep": "${NAME}"}], [10, {"deep": "tea"}]),
        (5, 5),
        (None, None),
    ],
)
def test_variables_are_expanded(monkeypatch: pytest.MonkeyPatch, config: Any, expanded: Any) -> None:
    for name, value in {"NAME": "tea", "NUMBER": "10", "EMPTY": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ABSENT", raising=False)
    actual = expand_env_vars(config)
    assert actual == expanded
    assert type(actual) is type(expanded)


def test_text_that_looks_like_many_variables_takes_no_time() -> None:
    text = "${a:-" * 100_000
    begin = time.process_time()
    assert expand_env_vars(text) == text
    assert time.process_time() - begin < 1


def test_what_a_variable_holds_is_not_expanded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTER", "${INNER}")
    assert expand_env_vars("${OUTER}") == "${INNER}"


def test_what_a_variable_holds_is_not_expanded_by_the_parser_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTM_URL", "sqlite:///${HOME}/x.db")
    assert parse_backend_config({"url": "${LTM_URL}"}) == ("sqlalchemy", {"url": "sqlite:///${HOME}/x.db"})


def test_a_variable_without_value_and_default_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    with pytest.raises(LTMError, match="ABSENT"):
        expand_env_vars({"url": "${ABSENT}"})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"ltm": {"url": "sqlite://"}}, {"backend": "sqlalchemy", "url": "sqlite://"}),
        ({"ltm": {"backend": "SQLAlchemy", "pool_size": "${ABSENT:-3}"}}, {"backend": "SQLAlchemy", "pool_size": 3}),
        ({"ltm_backend": "sqlalchemy", "ltm_url": "sqlite://"}, {"backend": "sqlalchemy", "url": "sqlite://"}),
        ({"ltm": {"ltm_path": "x.db"}}, {"backend": "sqlalchemy", "path": "x.db"}),
        ({"ltm": {"url": "sqlite://"}, "ltm_lazy": True}, {"backend": "sqlalchemy", "url": "sqlite://", "lazy": True}),
        ({}, {"backend": "sqlalchemy"}),
    ],
)
def test_the_block_is_expanded_and_flat_spellings_are_joined(
    settings: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert expand_ltm_config(settings) == expected


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ({"url": "sqlite:///a.db"}, "sqlite:///a.db"),
        ({"path": "a.db"}, "sqlite:///a.db"),
        ({"db_path": "/data/a.db"}, "sqlite:////data/a.db"),
        ({"ltm_path": "a.db"}, "sqlite:///a.db"),
        ({"path": ":memory:"}, "sqlite://"),
    ],
)
def test_a_path_is_the_url_of_a_file(config: dict[str, Any], url: str) -> None:
    assert parse_backend_config({"backend": " SQLAlchemy ", **config}) == ("sqlalchemy", {"url": url})


@pytest.mark.parametrize(
    ("ltm", "said"),
    [
        ({"url": "sqlite://", "pool_sise": 3}, "'pool_sise'; did you mean 'pool_size'?"),
        ({"urll": "sqlite://"}, "'urll'; did you mean 'url'?"),
        ({"url": "sqlite://", "zzz": 3}, "known: backend, "),
        ({"url": "sqlite://", "pool_size": "many"}, "pool_size must be an integer"),
        ({"url": "sqlite://", "lazy": "yes"}, "lazy must be true or false"),
        ({"url": "sqlite://", "echo": 1}, "echo must be true or false"),
        ({"url": "sqlite://", "timeout": 0}, "timeout must be a positive number"),
        ({"url": 5}, "url must be a database URL"),
        ({"url": "nonsense"}, "url cannot be parsed"),
        ({"url": "sqlite://", "path": "x.db"}, "one of url, path and db_path"),
        ({"path": "x.db", "db_path": "y.db"}, "one of url, path and db_path"),
        ({"path": ""}, "path must be the path of an SQLite file"),
        ({"url": "sqlite://", "ltm_url": "sqlite://"}, "a key twice"),
        ({"pool_size": 3}, "url is missing"),
        ({"backend": "redis", "url": "x"}, "unknown LTM backend 'redis'; known: "),
        ({"backend": None, "url": "x"}, "backend must be the name"),
        ({1: "x", "url": "sqlite://"}, "a key that is not text"),
        ("sqlite://", "settings.ltm must be a mapping"),
        ({"url": "sqlite:///a\0b"}, "url must be a database URL"),
    ],
)
def test_a_bad_block_is_refused_with_one_clear_message(ltm: Any, said: str) -> None:
    with pytest.raises(LTMError) as raised:
        parse_ltm_config({"ltm": ltm})
    assert raised.value.error_type == "configuration_error"
    assert said in str(raised.value)
    assert str(raised.value).startswith("settings.ltm")


def test_an_unreachable_database_stops_loading_unless_lazy() -> None:
    with pytest.raises(LTMError) as raised:
        parse_ltm_config({"ltm": {"url": "sqlite:////no/such/folder/x.db"}})
    assert raised.value.error_type == "connection_error"
    with parse_ltm_config({"ltm": {"url": "sqlite:////no/such/folder/x.db", "lazy": True}}) as backend:
        assert backend.store("k", 1)["error_type"] == "connection_error"


def test_the_name_of_a_backend_is_case_insensitive() -> None:
    with create_ltm_backend("SQLAlchemy", url="sqlite://", lazy=True) as backend:
        assert isinstance(backend, SQLAlchemyBackend)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'nonsense'; known: .*sqlalchemy"):
        create_ltm_backend("nonsense")


def test_third_parties_register_a_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry._backends, "_registered", {})

    def scratch(*, size: int = 1) -> LTMBackend:
        assert size == 2
        return SQLAlchemyBackend("sqlite://", lazy=True)

    register_backend("Scratch", scratch)
    assert get_registered_backends() == ["postgres", "scratch", "sqlalchemy", "sqlite"]
    parse_ltm_config({"ltm": {"backend": "scratch", "size": 2}}).close()
    with pytest.raises(LTMError, match="'sise'; did you mean 'size'"):
        parse_ltm_config({"ltm": {"backend": "scratch", "sise": 2}})


@pytest.mark.parametrize(("name", "factory", "error"), [("", dict, ValueError), ("x", None, TypeError)])
def test_a_bad_registration_is_refused(name: str, factory: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        register_backend(name, factory)
