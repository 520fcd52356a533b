"""Sampling replies, and verifying which are accepted."""
