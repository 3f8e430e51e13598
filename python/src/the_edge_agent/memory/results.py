"""Another name of ``the_edge_agent.memory.core.results``, for programs that import it from here."""

from the_edge_agent.memory.core.results import *  # noqa: F403
