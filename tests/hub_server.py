"""A stand-in for the Hugging Face hub on this machine: what its client asks for, and no more."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_the_tests"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: their files, and how often each was committed to."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, dict[str, bytes]] = {}  # of "owner/name", by path
        self.commits: dict[str, list[str]] = {}  # their messages
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.asked: list[str] = []  # "GET /path", of every request
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def sha(self, name: str) -> str:
        """The commit that a repository is at, as 40 hexadecimal digits."""
        parts = [f"{len(self.commits[name])}".encode()]
        parts += [k.encode() + v for k, v in sorted(self.files[name].items())]
        return hashlib.sha1(b"".join(parts)).hexdigest()

    def create(self, name: str) -> int:
        if name in self.files:
            return 409
        self.files[name], self.commits[name] = {".gitattributes": b""}, []
        return 200

    def commit(self, name: str, lines: list[dict]) -> dict:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits[name].append(value["summary"])
            elif line["key"] == "file":
                self.files[name][value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "deletedFile"
                del self.files[name][value["path"]]
        sha = self.sha(name)
        return {"commitOid": sha, "commitUrl": f"{self.url}/{name}/commit/{sha}"}


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args) -> None:
        pass

    def answer(self, code: int, content: object = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append(f"{self.command} {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username\nor password."})
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            if wanted.get("private") or wanted.get("visibility") == "private":
                hub.private.add(name)
            return self.answer(hub.create(name), {"url": f"{hub.url}/{name}"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        form = r"/(?:api/models/)?([^/]+/[^/]+)/([a-z-]+)/([^/]+)/?(.*)"
        name, action, revision, file = re.fullmatch(form, path).groups()
        if name not in hub.files:
            return self.answer(404, X_Error_Code="RepoNotFound")
        if name in hub.gated:
            return self.answer(403, X_Error_Code="GatedRepo")
        if revision not in ("main", sha := hub.sha(name)):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if action == "resolve":
            content = hub.files[name][file]
            return self.answer(200, content, X_Repo_Commit=sha, ETag=f'"{oid(content)}"')
        return self.answer(200, self.about(name, action, body))

    do_POST = do_HEAD = do_GET

    def about(self, name: str, action: str, body: bytes) -> object:
        """What the hub says of a repository, or does with it."""
        hub, files = self.server, self.server.files[name]
        if action == "commit":
            return hub.commit(name, [json.loads(line) for line in body.splitlines()])
        if action == "preupload":
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": f["path"]} | modes for f in json.loads(body)["files"]]}
        if action == "revision":
            siblings = [{"rfilename": path} for path in files]
            return {"id": name, "sha": hub.sha(name), "siblings": siblings, "private": False}
        paths = parse_qs(body.decode())["paths"] if action == "paths-info" else files
        return [{"type": "file", "path": p, "size": len(files[p]), "oid": oid(files[p])}
                for p in paths if p in files]  # fmt: skip


def oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
