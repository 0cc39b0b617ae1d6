"""Deterministic simulation: production's decision code under seeds, crashes, delays, skewed clocks, frozen processes.

schedule.py   virtual time, processes that crash and freeze, calls that get lost: everything drawn from one seed
memory.py     the lifecycle's store in memory, held to the same suite as PostgreSQL (tests/integration/lifecycle)
world.py      machines, clients, replicas, sweepers: what happens in one run
oracle.py     what must be true of a run, said without the code under test
lifecycle.py  `python -m tests.simulation.lifecycle --runs N --seed S`
"""
