"""Which instances hold a series, and how many of them must agree."""
