"""The `gumlab` command."""

from gumlab.cli.application import main

__all__ = ["main"]
