"""Typed specs of the three kinds, defined once."""
