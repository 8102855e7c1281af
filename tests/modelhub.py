"""A small server on this machine that speaks as much of the Hub's API as loading a model needs."""

import json
from contextlib import contextmanager
from hashlib import sha256
from urllib.parse import unquote

from tests.local_server import Handler, serving

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
OLDER = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(name, folder, *, token=None):
    """Serves one model's folder under a name, as branch "main", tag "v1" and commits `COMMIT` and `OLDER`.

    Args:
        token: without it the model is not there, as a private one.

    Yields:
        The address, and a list of the revisions and files that were fetched.
    """
    fetched = []
    revisions = {"main": COMMIT, "v1": OLDER, COMMIT: COMMIT, OLDER: OLDER}

    class Hub(Handler):
        def answer(self):
            parts = unquote(self.path.split("?")[0]).strip("/").removeprefix("api/models/").split("/")
            allowed = token is None or self.headers.get("Authorization") == f"Bearer {token}"
            if not allowed or "/".join(parts[:2]) != name:
                self.send(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
            elif "/resolve/" in self.path:
                self._file(*parts[3:])
            else:
                self._about(parts[2:])

        def _about(self, rest):
            revision = rest[1] if len(rest) > 1 else "main"
            if revision not in revisions:
                self.send(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
                return
            if len(rest) > 2:
                self.send(404, X_Error_Code="EntryNotFound", X_Error_Message="There is no such folder")
                return
            files = [file.name for file in folder.iterdir()]
            about = {"id": name, "sha": revisions[revision], "siblings": [{"rfilename": file} for file in files]}
            tree = [{"type": "file", "path": file, "size": 1, "oid": "0" * 40} for file in files]
            body = tree if rest[:1] == ["tree"] else about
            self.send(200, json.dumps(body).encode(), Content_Type="application/json")

        def _file(self, revision, *path):
            file = folder.joinpath(*path)
            if revision not in revisions:
                self.send(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
            elif not file.is_file():
                about = {"X_Error_Code": "EntryNotFound", "X_Error_Message": "Entry not found"}
                self.send(404, X_Repo_Commit=revisions[revision], **about)
            else:
                data = file.read_bytes()
                tags = {"ETag": f'"{sha256(data).hexdigest()}"', "X_Repo_Commit": revisions[revision]}
                if self.command == "GET":
                    fetched.append((revision, "/".join(path)))
                self.send(200, data, **tags)

    with serving(Hub) as server:
        yield f"http://127.0.0.1:{server.server_port}", fetched
