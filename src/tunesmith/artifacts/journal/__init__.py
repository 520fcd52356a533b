"""The journal of a generation job: append-only rows, locally and in the store."""
