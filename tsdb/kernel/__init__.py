"""The loops that NumPy cannot say: plain functions over arrays, compiled by Numba; `kernel.py_func` is their oracle."""
