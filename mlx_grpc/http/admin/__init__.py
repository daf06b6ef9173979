"""The admin port and the live page."""
