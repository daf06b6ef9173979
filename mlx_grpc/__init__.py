"""A gRPC inference service for MLX language models, its Python client, and its command line."""

__version__ = "0.1.0"
