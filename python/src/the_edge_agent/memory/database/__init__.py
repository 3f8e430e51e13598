"""What all families of memories share around a database: ledger, search plan, layouts, errors and blobs."""
