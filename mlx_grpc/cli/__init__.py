"""The command line, one file a command, upon the client. `serve` and `models` need the serving extra."""

import os

# gRPC's library writes to stderr by itself, as it is and as much as it likes: a line for each handshake that fails,
# what a peer said when it closed a connection. It reads this once, when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
