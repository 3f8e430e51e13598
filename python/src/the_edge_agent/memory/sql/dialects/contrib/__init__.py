"""Databases whose drivers are extras of their own."""
