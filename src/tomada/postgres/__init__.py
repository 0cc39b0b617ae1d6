"""PostgreSQL, the only thing Tomada keeps state in: the embedded server, the pool, group commit and migrations.

    launcher.embedded_server   a PostgreSQL of our own beside the program, when no TOMADA_DATABASE_URL is given
    pool.connect               connections, the same for the embedded and for an external server
    migrate.migrate            the schema, brought up to date at start, from files that are frozen
    group_commit.GroupCommit   many small writes in one durable transaction
    verdict.judge              what an error says: the data's fault, the server's state, or nobody knows
    health.Health              whether the database takes writes just now

Nothing here knows what the tables mean; SQL of a domain lives in that domain's `store.py`.
"""
