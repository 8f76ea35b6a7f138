"""Range vectors: which samples lie in each window, and what functions make of them."""
