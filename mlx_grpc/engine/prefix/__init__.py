"""The prefix cache: KV caches of ended rows, for rows that begin alike."""
