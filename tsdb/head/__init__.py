"""What is in memory: samples that are not yet in a block, and the index of their series."""
