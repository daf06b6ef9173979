"""What an operator sees of the server: logs, metrics, the status snapshot, traces."""
