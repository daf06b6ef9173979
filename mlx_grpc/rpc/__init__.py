"""The gRPC server: one servicer for each service, and what they share. Calls the service room and nothing below it."""
