"""NVIDIA GPUs: an attention kernel, and decode steps of Llama models."""
