"""The HTTP bridge: admin, the live page, OpenAI-compatible calls and WebSocket, over the same service as gRPC."""
