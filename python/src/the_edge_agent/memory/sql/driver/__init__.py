"""The layer between SQLAlchemy and the drivers: URLs, options, deadlines, prepared statements and errors."""
