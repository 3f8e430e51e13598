"""Another name of ``the_edge_agent.memory.contract.config``, for programs that import it from here."""

from the_edge_agent.memory.contract.config import *  # noqa: F403
