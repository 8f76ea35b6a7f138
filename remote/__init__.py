"""Many nodes as one: wire formats, the ring, quorum writes, tenants and their limits, and the roles of the cluster."""
