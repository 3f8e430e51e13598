"""Compares the speed of the memories with bare drivers and with other libraries; ``make bench`` runs it."""
