"""The statements of memories and catalogs, and the search."""
