"""URLs of PostgreSQL: parse them as libpq does, and hide secrets."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

import psycopg
from psycopg.conninfo import conninfo_to_dict

from the_edge_agent.memory.core.results import LTMError
from the_edge_agent.memory.core.showing import STRAY_CHARACTER, has_control_character, has_raw_login, ordinary, words_of
from the_edge_agent.memory.database.certificates import check_files
from the_edge_agent.memory.database.errors import Where

_SCHEMES: Final = ("postgresql", "postgres", "postgresql+psycopg")

_SHOWN: Final = ("user", "host", "hostaddr", "port", "dbname", "password")  # the password is hidden completely


class Place(NamedTuple):
    """Where a database is, without the password."""

    user: str
    host: str
    port: str
    name: str

    def __str__(self) -> str:
        """Return it as a URL."""
        user, host, port, name = self
        return f"postgresql://{user + ':***@' if user else ''}{host}{port and ':' + port}/{name}"


def parse_url(url: Any) -> tuple[str, Place]:
    """Return the URL as libpq reads it, and the place of the database.

    Raises:
        LTMError: ``configuration_error``. The message never shows the URL.
    """
    if isinstance(url, str) and "\0" not in url and has_control_character(url):
        raise _refused(STRAY_CHARACTER)
    scheme, separator, rest = url.partition("://") if isinstance(url, str) and "\0" not in url else ("", "", "")
    login = rest[: rest.partition("/")[0].rfind("@") + 1]
    place, _, options = rest[len(login) :].partition("?")
    if not separator or scheme not in _SCHEMES:
        raise _refused("url must be a PostgreSQL URL such as postgresql://user:password@host:5432/database")
    is_ambiguous = has_raw_login(url) if separator else False
    parts = None if is_ambiguous else _parts(f"postgresql://{rest}")
    if parts is None and options and not is_ambiguous and _parts(f"postgresql://{login}{place}") is not None:
        named = ", ".join(name for name in ordinary(dict(parse_qsl(options))) if not _is_known(name))
        raise _refused(
            "the url has an option that PostgreSQL's client library does not know or cannot read"
            f"{f' ({named})' if named else ''}; pool_size, timeout and the like do not belong in the url"
        )
    if parts is None:
        raise _refused(
            "url cannot be parsed; expected postgresql://user:password@host:port/database, "
            "with special characters in user, password and database percent-encoded"
        )
    place_of_url = Place(*(str(parts.get(part, "")) for part in ("user", "host", "port", "dbname")))
    for each in place_of_url.port.split(",") if place_of_url.port else ():  # there is one port for each host
        if each and not (each.isdecimal() and 0 < int(each) < 65_536):
            raise _refused("the port in the url must be a number from 1 to 65,535")
    return f"postgresql://{rest}", place_of_url._replace(port=place_of_url.port or "5432")


def where_of(url: str) -> tuple[Where, set[str]]:
    """Return the place to which a URL leads, for messages, and the words of the URL that no message may show.

    Raises:
        LTMError: ``configuration_error`` if an option names a file that does not exist.
    """
    parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    check_files(parts)
    host, port = parts.get("host", ""), parts.get("port", "") or "5432"
    others = ordinary(name for name in parts if name not in _SHOWN)
    where = Where(parts.get("user", ""), host, "" if host.startswith("/") else port, parts.get("dbname", ""), others)
    options = [value for name, value in parts.items() if name not in _SHOWN]
    return where, {parts.get("password", "")} - {""} | words_of(options)


def _is_known(option: str) -> bool:
    return _parts(f"postgresql:///?{option}=1") is not None


def _parts(url: str) -> dict[str, Any] | None:
    try:
        return conninfo_to_dict(url)
    except (psycopg.Error, UnicodeError):
        return None


def _refused(message: str) -> LTMError:
    return LTMError("configuration_error", message)
