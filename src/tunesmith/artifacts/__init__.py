"""Storage: S3 and folders behind one interface, transfers, atomic publish."""
