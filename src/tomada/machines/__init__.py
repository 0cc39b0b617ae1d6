"""Machines: the processes in which instances live, and the host that keeps them running.

A machine is an operating-system process that hosts the sessions of up to TOMADA_INSTANCES_PER_MACHINE instances; the
engine inside may abort() at any moment and takes only its own machine with it. The host (in the main process) starts
machines, gives them sessions, brings them back when they die, and passes on what they tell. They speak
`protocol.py` over pipes.

    host.py      the supervisor: which session lives in which machine, restarts, reconnect budget
    store.py     the SQL of the `session` table
    process.py   the program inside the machine
    journal.py   the file that makes a machine's events survive kill -9 until the host has committed them
"""
