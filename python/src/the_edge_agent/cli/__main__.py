"""``python -m the_edge_agent.cli`` is ``tea``."""

from the_edge_agent.cli import main

main()
