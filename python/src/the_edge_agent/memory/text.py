"""Another name of ``the_edge_agent.memory.core.tokens``, for programs that import it from here."""

from the_edge_agent.memory.core.tokens import *  # noqa: F403
