"""S3 as a store: client, conditional writes, errors and streams."""
