"""The models of a server: their engines, memory, calls and recovery."""
