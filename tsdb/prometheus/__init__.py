"""Reading the blocks of Prometheus, Thanos and Mimir."""
