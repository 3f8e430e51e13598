"""Fault tests: processes, servers and networks fail, and we count lost writes, wrong answers and missed deadlines."""
