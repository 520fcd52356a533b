"""Calls through an endpoint's batch interface."""
