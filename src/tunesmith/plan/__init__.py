"""Pure planning: from a typed spec to what the pod reads and what Kubernetes runs."""
