"""A sandbox, a session store and machines, as for the conformance suite."""

from tests.integration.machines.conftest import sessions, shared, stage

__all__ = ["sessions", "shared", "stage"]
