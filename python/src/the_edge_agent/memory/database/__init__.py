"""Shared by all memories and catalogs on a database: public methods, ledger, search plan, layouts, errors, blobs."""
