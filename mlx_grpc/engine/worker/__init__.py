"""The child process: its loop, its pipes, and which engine it opens."""
