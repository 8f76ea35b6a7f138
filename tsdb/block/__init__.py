"""Immutable blocks: the page codec, the index, the writer and the reader."""
