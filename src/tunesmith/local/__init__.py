"""tunesmith run: processes as the training operator would start them, and an embedded S3."""
