"""What callers say -> protobuf requests."""
