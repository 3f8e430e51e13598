"""What a memory and a catalog promise, and how one is made by name or from a configuration."""
