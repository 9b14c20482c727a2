"""The `gumlab` command."""

from gumlab.cli.commands import main

__all__ = ["main"]
