"""The engine: a child process that runs one model, and the link to it."""
