"""CatalogContract: every rule of a catalog in one class."""

from __future__ import annotations

from the_edge_agent.testing.catalog_bad_input import CatalogBadInputRules
from the_edge_agent.testing.catalog_batches import CatalogBatchRules
from the_edge_agent.testing.catalog_changes import CatalogChangeRules
from the_edge_agent.testing.catalog_closing import CatalogClosingRules
from the_edge_agent.testing.catalog_concurrency import CatalogConcurrencyRules
from the_edge_agent.testing.catalog_entries import CatalogEntryRules
from the_edge_agent.testing.catalog_exactness import CatalogExactnessRules
from the_edge_agent.testing.catalog_expiry import CatalogExpiryRules
from the_edge_agent.testing.catalog_generated import CatalogGeneratedRules
from the_edge_agent.testing.catalog_listing import CatalogListingRules
from the_edge_agent.testing.catalog_snapshots import CatalogSnapshotRules


class CatalogContract(
    CatalogEntryRules,
    CatalogExactnessRules,
    CatalogBadInputRules,
    CatalogListingRules,
    CatalogBatchRules,
    CatalogSnapshotRules,
    CatalogChangeRules,
    CatalogExpiryRules,
    CatalogGeneratedRules,
    CatalogConcurrencyRules,
    CatalogClosingRules,
):
    """The rules for every catalog. To run them, write a subclass.

    ```python
    class TestMyCatalog(CatalogContract):
        @pytest.fixture
        def open_catalog(self, tmp_path):
            return functools.partial(MyCatalog, tmp_path / "catalog")
    ```

    The fixture returns a picklable function without arguments that opens the catalog. The catalog is empty at first;
    each call opens the same catalog again, also in another process. For a catalog that disappears when its object is
    closed, set ``shared_by_processes = False``. Rules for methods beyond the nine of ``CatalogBackend`` are skipped if
    a catalog does not have them.
    """
