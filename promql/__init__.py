"""The query language of Prometheus: text to syntax tree to plan to a `Matrix`, over any `Source` of series."""
