"""LTMContract: every rule of the contract in one class."""

from __future__ import annotations

from the_edge_agent.testing.bad_input import BadInputRules
from the_edge_agent.testing.batches import BatchRules
from the_edge_agent.testing.cleanup import CleanupRules
from the_edge_agent.testing.closing import ClosingRules
from the_edge_agent.testing.concurrency import ConcurrencyRules
from the_edge_agent.testing.delete_all import DeleteAllRules
from the_edge_agent.testing.entries import EntryRules
from the_edge_agent.testing.exactness import ExactnessRules
from the_edge_agent.testing.expiry import ExpiryRules
from the_edge_agent.testing.filters import FilterRules
from the_edge_agent.testing.generated import GeneratedRules
from the_edge_agent.testing.imports import ImportRules
from the_edge_agent.testing.indexing import IndexRules
from the_edge_agent.testing.iteration import IterationRules
from the_edge_agent.testing.listing import ListingRules
from the_edge_agent.testing.many_keys import ManyKeysRules
from the_edge_agent.testing.measures import MeasureRules
from the_edge_agent.testing.namespace_lists import NamespaceListRules
from the_edge_agent.testing.namespaces import NamespaceRules
from the_edge_agent.testing.pages import PageRules
from the_edge_agent.testing.persistence import PersistenceRules
from the_edge_agent.testing.queries import QueryRules
from the_edge_agent.testing.questions import QuestionRules
from the_edge_agent.testing.ranking import RankRules
from the_edge_agent.testing.stats import StatsRules
from the_edge_agent.testing.times import TimeRules
from the_edge_agent.testing.touches import TouchRules
from the_edge_agent.testing.transactions import TransactionRules
from the_edge_agent.testing.versions import VersionRules


class LTMContract(
    EntryRules,
    ExactnessRules,
    BadInputRules,
    QueryRules,
    FilterRules,
    RankRules,
    QuestionRules,
    GeneratedRules,
    TransactionRules,
    BatchRules,
    ManyKeysRules,
    DeleteAllRules,
    IterationRules,
    ListingRules,
    ExpiryRules,
    TimeRules,
    PageRules,
    TouchRules,
    IndexRules,
    ImportRules,
    CleanupRules,
    VersionRules,
    MeasureRules,
    NamespaceRules,
    NamespaceListRules,
    ClosingRules,
    StatsRules,
    ConcurrencyRules,
    PersistenceRules,
):
    """The rules for every long-term memory. To run them, write a subclass.

    ```python
    class TestMyBackend(LTMContract):
        @pytest.fixture
        def open_backend(self, tmp_path):
            return functools.partial(MyBackend, tmp_path / "memory")
    ```

    The fixture returns a picklable function without arguments that opens the store. The store is empty at first; each
    call opens the same store again, also in another process. For a store that disappears when its backend is closed,
    set ``shared_by_processes = False``. Rules for a capability are skipped if the backend does not declare it.
    """
