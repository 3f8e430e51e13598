"""Another name of ``the_edge_agent.memory.contract.transaction``, for programs that import it from here."""

from the_edge_agent.memory.contract.transaction import *  # noqa: F403
