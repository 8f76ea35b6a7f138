"""Import of other stores' data, and export to files."""
