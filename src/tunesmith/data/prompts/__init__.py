"""Prompts of sampling, evaluation and chat: read, checked and stored on the local disk."""
