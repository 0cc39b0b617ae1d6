"""The machine's session store, in Go, against a real PostgreSQL."""
