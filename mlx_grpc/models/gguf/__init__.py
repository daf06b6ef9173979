"""Imports GGUF files of the Llama family as MLX model folders."""
