"""The actions that workflow nodes use, and how they are found and called."""
