"""What must stand in the environment of a process before it starts, so that the engine in it behaves.

Go copies the environment when the process begins; what is set later it never sees. So this is for whoever starts
machines; a machine process that was started without it starts itself anew.
"""

ENGINE_ENVIRONMENT = {
    "NEONIZE_BOT_TAG": "off",  # else every private message tells WhatsApp that a bot wrote it
}
