"""Another name of ``the_edge_agent.memory.core.query``, for programs that import it from here."""

from the_edge_agent.memory.core.query import *  # noqa: F403
