"""Runs the command line: `python -m iava`."""

import sys

from iava.cli.app import main

if __name__ == "__main__":
    # Manifests record the command line.
    sys.argv[0] = "iava"
    main()
