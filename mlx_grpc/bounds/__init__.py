"""What all clients together, and each connection, may take of the server: bytes, descriptors, rates."""
