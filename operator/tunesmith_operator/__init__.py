"""The Kubernetes operator: sees only `plan`, `api`, `names` and `errors` of Tunesmith."""
