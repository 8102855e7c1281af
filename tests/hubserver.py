"""A small server on this machine that speaks the Hub's API: data sets, their files, and parts of files."""

import json
from contextlib import contextmanager
from hashlib import sha256
from urllib.parse import unquote

from tests.local_server import Handler, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(datasets, *, cut_after=None):
    """Serves data sets: name -> file -> bytes.

    Args:
        cut_after: the first answer with a file's content ends after so many bytes, as if the connection broke.

    Yields:
        The address, and a list of (path, range) of all files that were asked for.
    """
    asked, cuts = [], [] if cut_after is None else [cut_after]

    class Hub(Handler):
        def _find(self):
            path = unquote(self.path.split("?")[0]).strip("/")
            for name, files in datasets.items():
                if path.startswith(f"api/datasets/{name}"):
                    siblings = [{"rfilename": file} for file in files]
                    about = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "gated": False}
                    tree = [
                        {"type": "file", "path": file, "size": len(data), "oid": sha256(data).hexdigest()[:40]}
                        for file, data in files.items()
                    ]
                    return "json", tree if "/tree/" in path else about
                for file, data in files.items():
                    if path == f"datasets/{name}/resolve/{COMMIT}/{file}":
                        return "file", data
            return None, None

        def answer(self):
            kind, found = self._find()
            if kind is None:
                self.send(404, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            elif kind == "json":
                self.send(200, json.dumps(found).encode(), Content_Type="application/json")
            else:
                self._file(found)

        def _file(self, data):
            headers = {"ETag": f'"{sha256(data).hexdigest()}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
            if self.command == "HEAD":
                self.send(200, **headers, Content_Length=len(data))
                return
            wanted = self.headers.get("Range")
            asked.append((self.path, wanted))
            start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
            part = data[start:]
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            if cuts:
                self.send(200, part[: cuts.pop()], **headers, Content_Length=len(part))
                self.close_connection = True
                return
            self.send(206 if wanted else 200, part, **headers, **({"Content_Range": span} if wanted else {}))

    with serving(Hub) as server:
        yield f"http://127.0.0.1:{server.server_port}", asked
