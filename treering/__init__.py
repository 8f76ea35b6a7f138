"""Treering, a long-term store for Prometheus metrics."""
