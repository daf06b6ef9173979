"""One live call: its tokens, its text, its stop strings, its end."""
