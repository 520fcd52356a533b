"""Tree packing: samples as one tree of tokens, and attention along it."""
