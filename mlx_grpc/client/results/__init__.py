"""Protobuf responses and events -> what callers get."""
