"""DeepSpeed: config and runtime."""
