"""Another name of ``the_edge_agent.memory.core.filters``, for programs that import it from here."""

from the_edge_agent.memory.core.filters import *  # noqa: F403
