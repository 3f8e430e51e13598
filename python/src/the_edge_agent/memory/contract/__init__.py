"""The contracts of memories and catalogs, and how to create one by name or from a configuration."""
