"""Chat templates: what one does, seen by trying it, and what is passed to it."""
