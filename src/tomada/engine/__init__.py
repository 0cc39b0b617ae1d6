"""The engine: the library that speaks WhatsApp, behind a narrow port.

`port.py` says what the rest of Tomada may ask of an engine and what it hears from one; it knows no library. Next to it
stands the adapter for the engine in use. Only machine processes run an engine; everyone else imports the port's types.
"""
