"""Check the files for encrypted connections. Drivers explain a missing file badly, or ignore it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from the_edge_agent.memory.core.results import LTMError

_FILES: Final = (
    *("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir"),  # of libpq
    *("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key"),  # of drivers for MySQL
)
_OF_THE_SYSTEM: Final = "system"  # for libpq: the certificate authorities that the system trusts


def check_files(options: Mapping[str, Any]) -> None:
    """Refuse driver options that name a file or folder which does not exist.

    Raises:
        LTMError: ``configuration_error``; the message names the option.
    """
    nested = options.get("ssl")  # of PyMySQL and mysqlclient, in ``connect_args``
    names = {f"ssl_{name}": value for name, value in nested.items()} if isinstance(nested, Mapping) else {}
    for name in _FILES:
        value = options.get(name, names.get(name))
        if isinstance(value, str) and value and value != _OF_THE_SYSTEM and not Path(value).exists():
            raise LTMError("configuration_error", f"the file that {name} names does not exist")
