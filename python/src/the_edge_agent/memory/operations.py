"""Another name of ``the_edge_agent.memory.core.operations``, for programs that import it from here."""

from the_edge_agent.memory.core.operations import *  # noqa: F403
