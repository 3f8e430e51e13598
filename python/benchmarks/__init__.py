"""Measures the memories beside the bare drivers and their peers; ``make bench`` runs it."""
