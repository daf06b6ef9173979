"""From what a client sends to a request that is checked, complete, and made of token ids."""
