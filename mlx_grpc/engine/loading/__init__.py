"""From a model folder to a network in memory, and what the server must know of it."""
