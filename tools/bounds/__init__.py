"""The table of bounds in SECURITY.md, made from the code."""
