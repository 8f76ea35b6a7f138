"""Aggregations and binary operators over matrices."""
