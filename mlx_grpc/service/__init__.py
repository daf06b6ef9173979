"""What happens to a request before the queue, and to its tokens on the way back. No protobuf, no MLX."""
