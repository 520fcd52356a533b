"""Readers and preparations, one file a format."""
