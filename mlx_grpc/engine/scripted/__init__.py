"""The scripted engine: the worker's loop and messages without MLX, for tests."""
