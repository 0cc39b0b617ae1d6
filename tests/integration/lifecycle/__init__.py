"""The lifecycle on a real PostgreSQL: the same as in memory, step by step, in races and after crashes."""
