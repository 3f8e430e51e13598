"""Throwaway PostgreSQL, MariaDB and MySQL on loopback, without containers and without touching the system."""
