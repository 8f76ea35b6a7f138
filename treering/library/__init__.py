"""The Python face: stores, results, DataFrames."""
