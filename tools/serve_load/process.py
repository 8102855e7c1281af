"""A server in a process of its own."""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx


class Process:
    """A command `iava ...` that serves, ready when the constructor returns.

    Args:
        arguments: of the command, such as "serve", "pocket", "--port", 0.
    """

    def __init__(self, *arguments):
        command = [sys.executable, "-c", "from iava.cli.app import main; main()", *map(str, arguments)]
        # Files, because a pipe that nobody reads fills up.
        folder = Path(tempfile.mkdtemp(prefix="iava-serve-"))
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err)
        while not (address := re.search(r"^iava: .*(http://\S+)\n", self._err.read_text(), re.MULTILINE)):
            assert self.process.poll() is None, self._err.read_text()
            time.sleep(0.05)
        self.url = address[1]
        self.http = httpx.Client(base_url=self.url, timeout=60)

    def memory(self):
        """Resident bytes, the largest number of resident bytes so far, threads and open files."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines())
        files = len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))
        resident, peak = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return {"resident": resident, "peak": peak, "threads": int(status["Threads"]), "files": files}

    def metric(self, name):
        """The value of a metric without labels."""
        return float(re.search(rf"^{name} (\S+)$", self.http.get("/metrics").text, re.MULTILINE)[1])

    def end(self):
        """Waits for the end: the exit code, the access log, and standard error after the address."""
        code = self.process.wait(120)
        log = [json.loads(line) for line in self._out.read_text().splitlines()]
        return code, log, self._err.read_text().partition(self.url)[2]
