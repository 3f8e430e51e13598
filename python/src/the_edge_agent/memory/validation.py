"""Another name of ``the_edge_agent.memory.core.validation``, for programs that import it from here."""

from the_edge_agent.memory.core.validation import *  # noqa: F403
