"""Questions and answers on one WebSocket."""
