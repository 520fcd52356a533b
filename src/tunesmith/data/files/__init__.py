"""Containers of records: JSON, tables, Parquet and text, read as streams."""
