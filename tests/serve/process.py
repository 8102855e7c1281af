"""A server in a process of its own."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Process:
    """`iava ...` from its first line on standard error to its end."""

    def __init__(self, *arguments):
        command = [sys.executable, "-c", "from iava.cli.app import main; main()", *map(str, arguments)]
        # Files, because a pipe that nobody reads fills up.
        folder = Path(tempfile.mkdtemp(prefix="iava-serve-"))
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err)
        while not (said := re.search(r"^iava: .*(http://\S+)\n", self._said(), re.MULTILINE)):
            assert self.process.poll() is None, self._said()
            time.sleep(0.05)
        self.url = said[1]
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def _said(self):
        return self._err.read_text()

    def end(self):
        """The exit code, the access log, and what was said on standard error after the address."""
        code = self.process.wait(120)
        log = [json.loads(line) for line in self._out.read_text().splitlines()]
        return code, log, self._said().partition(self.url)[2]
