"""Tunesmith: LLM post-training as Kubernetes resources."""

__version__ = "0.2.0"
