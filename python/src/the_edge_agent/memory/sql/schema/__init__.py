"""The tables: their declarations, creation and upgrade, and the values of a row."""
