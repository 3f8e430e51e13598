"""What the SQLAlchemy backends share: engine, transactions, errors, schema, dialects."""
