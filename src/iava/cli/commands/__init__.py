"""One module per command. No command imports `iava.cli.app`."""
