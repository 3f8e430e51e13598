"""What is between SQLAlchemy and a driver: URLs, options, deadlines, prepared statements and errors."""
