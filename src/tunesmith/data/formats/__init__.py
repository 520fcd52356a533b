"""Formats of records: how a record becomes training data, one file per format."""
