"""`python -m gumlab.cli` is the `gumlab` command."""

from gumlab.cli.application import main

main()
