"""Machines: the processes in which instances live, and the host that keeps them running.

A machine is an operating-system process that hosts the sessions of up to TOMADA_INSTANCES_PER_MACHINE instances; the
engine inside may abort() at any moment and takes only its own machine with it. The host (in the main process) starts
machines, gives them sessions, brings them back when they die, and passes on what they tell. They speak
`protocol.py` over pipes.

    host.py            which session lives in which machine; start and stop of all of it
    control.py         what may be asked of a session: pair, send, restart, disconnect, remove
    session.py         one session: keeps what runs in line with what is decided
    session_state.py   the decisions, a pure function; docs/machines.md draws it
    backoff.py         when a session may connect, and why there are two paces
    probing.py         finds deaf sessions
    tending.py         keeps one place free, ends surplus machines
    machine.py         one slot's machine, kept running
    pipe.py            one process and its pipes
    protocol.py        the lines that go through them
    lanes.py           work in order per instance, tried until done
    slots.py           the folders of machines
    store.py           the SQL of the `session` table
    keys.py            the host's SQL on the session store
    quarantine.py      events that our own code could not handle

The program inside a machine is written in Go and lies in machine/.
"""
