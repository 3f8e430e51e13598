"""What all memories and catalogs on a database share: public methods, ledger, search plan, layouts, errors, blobs."""
