"""Memory and catalog on SQLAlchemy, with their engines, transactions, schema and dialects."""
