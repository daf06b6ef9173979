"""The OpenAI-compatible port."""
