"""Calls of many threads and event loops → batches → answers."""
