"""The isolation of PostgreSQL transactions that do not name theirs.

A database or a user may have it serializable (``default_transaction_isolation``), which no server takes that follows
another: not even a SELECT runs there then. So sessions of ours have READ COMMITTED, and name it while they are set up.
"""

from __future__ import annotations

from typing import Final

READ_COMMITTED: Final = {"default_transaction_isolation": "read committed"}  # a setting of the session
BEGIN_TO_SET_UP: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
BEGIN_ANEW_TO_SET_UP: Final = f"COMMIT; {BEGIN_TO_SET_UP}"  # where the driver has begun already, without a level
