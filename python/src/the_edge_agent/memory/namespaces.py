"""Another name of ``the_edge_agent.memory.core.namespaces``, for programs that import it from here."""

from the_edge_agent.memory.core.namespaces import *  # noqa: F403
