"""Moves entries between memories: export and import of files, copies, backups, and the files of other programs."""
