"""The transformers engine: replies generated in batches."""
