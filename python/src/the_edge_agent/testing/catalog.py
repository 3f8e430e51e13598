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
    """What every catalog must do; run it by subclassing.

    ```python
    class TestMyCatalog(CatalogContract):
        @pytest.fixture
        def open_catalog(self, tmp_path):
            return functools.partial(MyCatalog, tmp_path / "catalog")
    ```

    The fixture returns a picklable callable without arguments that opens the catalog, which is empty at first;
    each call opens the same catalog again, also in another process. For one that ends with its object, set
    ``shared_by_processes = False``. Rules of methods beyond ``CatalogBackend``'s nine are skipped where a catalog
    lacks them.
    """
