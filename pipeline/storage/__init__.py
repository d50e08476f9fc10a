"""Storage: atomic files, Parquet tables, objects at URLs, and locks for stores at URLs."""
