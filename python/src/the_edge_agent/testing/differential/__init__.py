"""A differential test: random calls on a database of yours and in a model of the documentation, answer by answer.

``python -m the_edge_agent.testing.differential --url URL`` runs it; ``docs/your-own-backend.md`` tells more. The model
is written from the documentation alone: it shares no code with the memories that it is compared with.
"""

from the_edge_agent.testing.differential.places import Place
from the_edge_agent.testing.differential.run import Difference, Outcome, run

__all__ = ["Difference", "Outcome", "Place", "run"]
