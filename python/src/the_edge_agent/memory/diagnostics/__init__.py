"""The command ``tea memory check`` and ``check_database``: test and describe a database."""
