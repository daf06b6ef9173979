"""Rows that share the device: prefill, decode steps, and the row caches that they read and write."""
