"""The caches of a batch's rows: one object a layer holds what all rows have there."""
