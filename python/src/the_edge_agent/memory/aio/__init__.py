"""``AsyncMemory`` and ``AsyncCatalog``: long-term memory for asynchronous programs, on asyncio and trio."""

from __future__ import annotations

try:
    import anyio as _  # noqa: F401 - only to say what is missing
except ImportError as error:
    raise ImportError(
        'the_edge_agent.memory.aio needs anyio; install it with: pip install "the-edge-agent[async]"'
    ) from error

from the_edge_agent.memory.aio.catalog import AsyncCatalog
from the_edge_agent.memory.aio.items import AsyncItems
from the_edge_agent.memory.aio.memory import AsyncMemory
from the_edge_agent.memory.aio.transaction import AsyncTransaction

__all__ = ["AsyncCatalog", "AsyncItems", "AsyncMemory", "AsyncTransaction"]
