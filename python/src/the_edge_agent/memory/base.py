"""Another name of ``the_edge_agent.memory.contract.backend``, for programs that import it from here."""

from the_edge_agent.memory.contract.backend import *  # noqa: F403
from the_edge_agent.memory.contract.config import *  # noqa: F403
