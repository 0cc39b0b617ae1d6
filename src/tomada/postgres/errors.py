"""What can keep a database from being used, in words that tell the operator what to do.

    EmbeddedServerError        ProgramsMissing, DataDirectoryInUse, DataDirectoryUnusable, StartFailed
    SchemaRefused              SchemaTooNew, SchemaDiffers, MigrationChanged

These stop the program at start (`tomada serve` prints them); they never reach the wire.
"""


class EmbeddedServerError(Exception):
    """The embedded PostgreSQL cannot be run; the message says why and what to do."""


class ProgramsMissing(EmbeddedServerError):
    """No usable PostgreSQL programs on this computer."""


class DataDirectoryInUse(EmbeddedServerError):
    """Another Tomada, or a PostgreSQL that will not stop, holds the data directory."""


class DataDirectoryUnusable(EmbeddedServerError):
    """The data directory cannot be used: wrong version, wrong owner, or no account to run as."""


class StartFailed(EmbeddedServerError):
    """PostgreSQL ended, or did not become ready in time; the end of its log is in the message."""


class SchemaRefused(Exception):
    """The tables of this database are not those that this program works on; the message says why and what to do."""


class SchemaTooNew(SchemaRefused):
    """The database was migrated by a newer Tomada; run that version, or restore a backup taken before the upgrade."""


class SchemaDiffers(SchemaRefused):
    """The database was made by other migrations than those that this program has under the same numbers."""


class MigrationChanged(SchemaRefused):
    """A migration of this program is not the one that was released under its name."""
