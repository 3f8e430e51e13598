"""Shared by every part of the memory: results, checked input, JSON, words, filters and operations."""
