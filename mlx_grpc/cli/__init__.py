"""The command line, one file a command, upon the client. `serve` and `models` need the serving extra."""
