"""The programs that run in the pods, one per kind."""
