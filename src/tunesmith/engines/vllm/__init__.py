"""The vLLM engine: its settings, processes and requests."""
