"""A server in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

PRODUCTION = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""Environment of the units in docs/serving.md: memory that is freed goes back to the system."""


class Process:
    """A command `iava ...` that serves, ready when the constructor returns.

    Args:
        arguments: of the command, such as "serve", "pocket", "--port", 0.
        environment: variables beside those of this process.
    """

    def __init__(self, *arguments, environment=None):
        # Files, because a pipe that nobody reads fills up.
        folder = Path(tempfile.mkdtemp(prefix="iava-serve-"))
        self._out, self._err, self._counts = folder / "out", folder / "err", folder / "counts"
        program = Path(__file__).with_name("counted.py")
        command = [sys.executable, program, self._counts, *map(str, arguments)]
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **(environment or {})})
        while not (address := re.search(r"^iava: .*(http://\S+)\n", self._err.read_text(), re.MULTILINE)):
            assert self.process.poll() is None, self._err.read_text()
            time.sleep(0.05)
        self.url = address[1]
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def memory(self):
        """Live objects, tensors and their bytes; resident bytes, threads and open files. Waits for the last batch."""
        before, counts = None, self._count()
        while before is None or before["tensors"] != counts["tensors"]:
            time.sleep(0.5)
            before, counts = counts, self._count()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines())
        return {
            **counts,
            "resident": int(status["VmRSS"].split()[0]) * 1024,
            "threads": int(status["Threads"]),
            "files": len(list(Path(f"/proc/{self.process.pid}/fd").iterdir())),
        }

    def _count(self):
        self._counts.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        while not self._counts.exists():
            assert self.process.poll() is None, self._err.read_text()
            time.sleep(0.05)
        return json.loads(self._counts.read_text())

    def metric(self, name):
        """The value of a metric without labels."""
        return float(re.search(rf"^{name} (\S+)$", self.http.get("/metrics").text, re.MULTILINE)[1])

    def end(self):
        """Waits for the end: the exit code, the access log, and standard error after the address."""
        code = self.process.wait(120)
        log = [json.loads(line) for line in self._out.read_text().splitlines()]
        return code, log, self._err.read_text().partition(self.url)[2]
