from gumlab.cli.commands import main

main()
