"""The actions that workflow nodes use, and the registry that finds and calls them."""
