"""Pure planning: what the pod reads and what Kubernetes runs, for a typed spec."""
