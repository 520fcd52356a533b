"""The Kubernetes operator: imports only `plan`, `api`, `names` and `errors` of Tunesmith."""
