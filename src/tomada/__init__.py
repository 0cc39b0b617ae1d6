"""Tomada: a self-hosted PlugzAPI. Start reading at docs/architecture.md, then app.py."""
