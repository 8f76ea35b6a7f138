"""Functions of instant vectors and scalars."""
