"""The HTTP API: routes, handlers, and the border between bytes and errors."""
