"""Dialects of databases whose drivers are extras of their own."""
