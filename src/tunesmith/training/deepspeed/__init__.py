"""DeepSpeed: configuration and runtime."""
