"""The programs that run in the pods, one a kind."""
