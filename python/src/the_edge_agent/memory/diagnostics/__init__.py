"""The check of a database, and what it tells."""
