"""The command line: `app` registers the commands, one module per command."""
