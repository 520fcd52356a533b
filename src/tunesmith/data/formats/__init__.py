"""Formats of records: what one record teaches, one file per format."""
