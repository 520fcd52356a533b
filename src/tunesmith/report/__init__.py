"""report.html for each kind."""
