"""WhatsApp's language and ours: pure translation, in both directions.

    port.py        our words: contents and events; knows no library
    told.py        a machine's words: the events of the machine protocol
    reading.py     from a machine's to ours
    building.py    from ours to WhatsApp's message
    addresses.py   WhatsApp's addresses and the wire's

The library that speaks with WhatsApp is whatsmeow, inside the machine program (machine/); a fault of translation is
mended here and what was quarantined for it is told again.
"""
