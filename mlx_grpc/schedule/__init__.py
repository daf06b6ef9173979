"""The schedule room: who runs next, who waits, who is refused. No clock, thread or MLX in here."""
