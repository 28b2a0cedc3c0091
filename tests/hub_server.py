"""A hub on the loopback interface: the part of its protocol that downloads speak."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Repo:
    """A model on the hub, and how the hub behaves towards who asks for it."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    token: str | None = None
    """Who does not send it is refused: 401, or 403 with a token that may not read."""
    gated: bool = False
    status: int | None = None
    """What every request is answered with."""
    stalls: dict[str, int] = field(default_factory=dict)
    """After so many bytes of a file nothing more comes, once."""
    cuts: dict[str, int] = field(default_factory=dict)
    """After so many bytes of a file the connection breaks, once."""


@dataclass
class Hub:
    endpoint: str
    repos: dict[str, Repo]
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    """(method, path, headers) of every request."""
    stalled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def fetched(self) -> list[str]:
        """The files whose bytes were asked for, sorted."""
        found = (re.fullmatch(r"/cdn/[^/]+/[^/]+/(.+)", path) for _, path, _ in self.gets())
        return sorted(match[1] for match in found if match)

    def gets(self) -> list[tuple[str, str, dict[str, str]]]:
        return [request for request in self.asked if request[0] == "GET"]


def etag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serve(**repos: Repo) -> Iterator[Hub]:
    """Runs a hub that has the models `org/NAME`, or whatever an id with a slash names."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_port}", names(repos))
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def names(repos: dict[str, Repo]) -> dict[str, Repo]:
    """Repositories by their ids; a name alone is one of `org`."""
    return {name if "/" in name else f"org/{name}": repo for name, repo in repos.items()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        path, _, _ = self.path.partition("?")
        path = unquote(path)
        hub.asked.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        match = re.fullmatch(
            r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<rev>.+?))?"
            r"|(?:/datasets)?/(?P<owner>[^/]+/[^/]+)/resolve/(?P<at>[^/]+)/(?P<file>.+)"
            r"|/cdn/(?P<cdn>[^/]+/[^/]+)/(?P<blob>.+)",
            path,
        )
        name = match and (match["repo"] or match["owner"] or match["cdn"])
        repo = hub.repos.get(name or "")
        if match is None or repo is None:
            self._refuse(404, "RepoNotFound")
        elif repo.status is not None:
            self._refuse(repo.status)
        elif match["cdn"]:
            self._send_range(hub, repo, match["blob"])
        elif not self._may_read(repo):
            pass
        elif (match["rev"] or match["at"] or "main") not in (*repo.revisions, COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif match["file"] is None:
            self._describe(name, repo, match["what"])
        elif match["file"] not in repo.files:
            self._refuse(404, "EntryNotFound")
        else:
            self._point(name, match["file"], repo.files[match["file"]])

    def _may_read(self, repo: Repo) -> bool:
        given = self.headers.get("Authorization")
        if repo.token is None or given == f"Bearer {repo.token}":
            return True
        code = "RepoNotFound" if given is None else None
        self._refuse(401 if given is None else 403, "GatedRepo" if repo.gated else code)
        return False

    def _describe(self, name: str, repo: Repo, what: str | None) -> None:
        if what == "tree":
            answer: object = [
                {"type": "file", "path": path, "size": len(content), "oid": etag(content)[:40]}
                for path, content in repo.files.items()
            ]
        else:
            siblings = [{"rfilename": path} for path in repo.files]
            answer = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _point(self, name: str, file: str, content: bytes) -> None:
        """Where a file's bytes are, as the hub says it of large files."""
        tag = f'"{etag(content)}"'
        linked = {"X-Linked-Etag": tag, "X-Linked-Size": str(len(content))}
        location = {"Location": f"/cdn/{name}/{file}", "X-Repo-Commit": COMMIT, "ETag": tag}
        self._send(302, b"", linked | location)

    def _send_range(self, hub: Hub, repo: Repo, file: str) -> None:
        content = repo.files[file]
        begin = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(begin[1]) if begin else 0
        headers = {"ETag": f'"{etag(content)}"', "Accept-Ranges": "bytes", "X-Repo-Commit": COMMIT}
        if begin:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        once = self.command == "GET"
        stall = repo.stalls.pop(file, None) if once else None
        cut = repo.cuts.pop(file, None) if once else None
        end = next((n for n in (stall, cut) if n is not None), len(content))
        self._send(206 if begin else 200, content[first:], headers, count=end)
        if stall is not None:
            hub.stalled.set()
            hub.over.wait()
        if cut is not None:
            self.close_connection = True

    def _refuse(self, status: int, code: str | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._send(status, b"", headers)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], count: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:count])
            self.wfile.flush()
