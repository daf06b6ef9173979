"""Imports GGUF files as MLX model folders: families that `families` has tables of."""
