"""The sandbox: a simulated WhatsApp network with simulated phones, for tests, demos and integrators without a phone.

It exists so that the real engine, its file on disk untouched, can pair, log in, send and receive without any
contact to the outside. It speaks the wire protocol itself (`codec`, `noise`, `connection`), routes stanzas like the
real servers (`network` and its handlers), and keeps simulated phones with their own Signal code. `server` is the
process that runs it all; `launch` says how a machine process is pointed at it.

Nothing in the product imports this package except where the command line starts it.
"""
