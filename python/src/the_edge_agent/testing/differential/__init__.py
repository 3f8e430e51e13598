"""A differential test: it makes random calls on your database and on a model in Python, and compares every answer.

``python -m the_edge_agent.testing.differential --url URL`` runs it; ``docs/your-own-backend.md`` describes it. The
model was written from the documentation alone. It shares no code with the memories that it is compared with.
"""

from the_edge_agent.testing.differential.places import Place
from the_edge_agent.testing.differential.run import Difference, Outcome, run

__all__ = ["Difference", "Outcome", "Place", "run"]
