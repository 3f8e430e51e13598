"""Fault tests: what becomes of acknowledged writes, answers and deadlines when processes, servers and networks fail."""
