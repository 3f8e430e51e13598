"""A Firebird database for the tests; a call of the driver creates it, because Firebird has no SQL for that."""

from __future__ import annotations

import ctypes
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, inspect, make_url
from sqlalchemy.pool import NullPool

PAGE_BYTES = 16_384


class FirebirdDatabase:
    """A database file in the folder of the file with which the server was started."""

    def __init__(self, target: Any, admin_url: str) -> None:
        """Create the file."""
        load_libraries(admin_url)
        from firebird.driver import create_database, driver_config

        admin = make_url(admin_url)
        name = f"tea_test_{secrets.token_hex(6)}.fdb"
        self.url = admin.set(database=str(Path(admin.database or "").with_name(name))).render_as_string(False)
        self._engine = firebird_engine(self.url)
        config = driver_config.db_defaults
        config.page_size.value, config.db_charset.value = PAGE_BYTES, "UTF8"
        create_database(_place(self._engine.url), user=admin.username, password=admin.password).close()

    def delete_rows(self) -> None:
        """Empty our tables."""
        with self._engine.begin() as connection:
            for name in inspect(connection).get_table_names():
                if name.startswith("ltm_") and name not in ("ltm_schema_version", "ltm_settings"):
                    connection.exec_driver_sql(f"DELETE FROM {name}")

    def drop(self) -> None:
        """Drop the database."""
        # If a test has left a connection open, the server closes it when it stops. A signal may have shut the client
        # library down.
        with suppress(Exception):
            connection: Any = self._engine.raw_connection().driver_connection
            connection.drop_database()


def firebird_engine(url: str) -> Engine:
    """Return an engine without a pool, so that it keeps no connection open."""
    place = {"database": _place(make_url(url))}
    return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=place)


def _place(url: URL) -> str:
    return (
        f"inet://{url.host}:{url.port}/{url.database}"  # without the address, the driver uses one server for each path
    )


def load_libraries(url: str) -> None:
    """Load the libraries that the client library needs: they are in its folder, where the system does not look."""
    for library in Path(str(make_url(url).query["fb_client_library"])).parent.glob("libtommath.so.*"):
        ctypes.CDLL(str(library))
