"""What every part of the memory shares: results, checked input, JSON, words, filters and operations."""
