"""Readers and preparation of data, one file per format."""
