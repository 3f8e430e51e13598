"""Another name of ``the_edge_agent.memory.contract.catalog``, for programs that import it from here."""

from the_edge_agent.memory.contract.catalog import *  # noqa: F403
from the_edge_agent.memory.contract.config import parse_catalog_config as parse_catalog_config
