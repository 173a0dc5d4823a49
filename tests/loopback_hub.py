"""An in-memory Hugging Face Hub for tests, with the protocol of its real client and of `hf`.

Standard library only. Models, and data sets, whose ids begin with ``datasets/`` here; large files by git-lfs (no xet;
with `xet_only` they are refused to clients without it).
Tests inspect `requests`, `commits` and `files`, and make the next requests fail with `fail`. Large files are at
another origin (`localhost`, not `127.0.0.1`) behind signed addresses, as on the real hub: sending a token there is a
leak.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import secrets
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_LFS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".tar", ".npz", ".npy", ".onnx", ".parquet")
_LFS_SIZE = 10_000_000
_XET_ONLY = "Large files of this repository are stored by Xet, which your client does not speak"
_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LFS_SUFFIXES).encode()


@dataclass(frozen=True)
class Request:
    """A request; status 0 where its connection was cut."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    status: int = 0

    @property
    def token(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}


@dataclass
class Fault:
    """How the next requests are broken.

    Attributes:
        pattern: Regular expression that is searched in ``METHOD /path``.
        times: How many of these requests.
        delay: Seconds to wait first.
        status: Answer with this status, and do nothing else.
        headers: Headers of that answer, such as ``Retry-After``.
        received: Cut the connection when this many bytes of the request's body were read; nothing is done.
        sent: Cut the connection when this many bytes of the answer's body were sent; what was asked is done.
        reset: Whether a cut is a reset (RST), not an end of the stream.
        leave: Whether the hub goes away with a cut.
    """

    pattern: str
    times: int = 1
    delay: float = 0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    received: int | None = None
    sent: int | None = None
    reset: bool = False
    leave: bool = False


@dataclass(frozen=True)
class File:
    """A file of a commit."""

    content: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def oid(self) -> str:
        """What git calls it: a large file by the pointer to it."""
        blob = self.content
        if self.lfs:
            blob = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(blob)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()


@dataclass(frozen=True)
class Commit:
    """A commit: all files of the repository after it."""

    oid: str
    parent: str | None
    title: str
    author: str
    date: str
    files: dict[str, File]


@dataclass
class Repo:
    """A repository; `branches` holds the pull requests, too, as ``refs/pr/1``; gated for all but `readers`."""

    id: str
    private: bool = False
    readers: set[str] | None = None
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        return self.id.removeprefix("datasets/").split("/")[0]

    def history(self, revision: str) -> list[Commit]:
        """Commits of a branch, tag, pull request or commit, the newest first."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        oid: str | None = self.branches.get(name) or self.tags.get(name) or revision
        if oid not in self.commits:
            raise _refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        commits = []
        while oid is not None:
            commits.append(self.commits[oid])
            oid = commits[-1].parent
        return commits

    def add(self, branch: str, title: str, author: str, files: dict[str, File], parent: str | None) -> Commit:
        content = [parent, title, author, len(self.commits), [(path, file.oid) for path, file in files.items()]]
        oid = hashlib.sha1(json.dumps(content).encode()).hexdigest()
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.commits[oid] = Commit(oid, parent, title, author, date, files)
        self.branches[branch] = oid
        return self.commits[oid]


@dataclass(eq=False)
class Answer(Exception):
    """An answer; raised where it is an error."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def _json(value: Any, status: int = 200, **headers: str) -> Answer:
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"} | names)


def _refusal(status: int, message: str, code: str = "", **body: Any) -> Answer:
    # Over plain http the client tells errors apart by their code only.
    return _json(
        {"error": message} | body, status, X_Error_Message=message, **({"X_Error_Code": code} if code else {})
    )


_ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = []
_ID = r"(?P<repo_id>(?:datasets/)?[^/]+/[^/]+)"
_API = f"/api/(?:models/|(?=datasets/)){_ID}"
_REVISION = "(?P<revision>[^/]+)"
_STORAGE = f"/storage/{_ID}/(?P<oid>[0-9a-f]{{64}})"


def _route(methods: str, pattern: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _ROUTES.extend((method, re.compile(pattern), function) for method in methods.split())
        return function

    return register


class LoopbackHub:
    """The hub; use it as a context manager, or `start` and `stop` it, as often as you like.

    Args:
        port: Port on 127.0.0.1; see `reserve_port`.

    Attributes:
        endpoint: Address for ``HF_ENDPOINT``.
        requests: Every request so far.
        faults: Those that have not happened yet.
        token: Token of the user "ada", who may write to ``ada/...``.
        xet_only: Whether large files are neither served nor taken by git-lfs.
    """

    def __init__(self, port: int):
        self.endpoint = f"http://127.0.0.1:{port}"
        self.requests: list[Request] = []
        self.repos: dict[str, Repo] = {}
        self.connections: set[socket.socket] = set()
        self._port = port
        self._users: dict[str, tuple[str, bool]] = {}
        self._signature = secrets.token_hex(16)
        self.faults: list[Fault] = []
        self.xet_only = False
        self._lock = threading.RLock()
        self._server: ThreadingHTTPServer | None = None
        self.token = self.add_user("ada")

    def __enter__(self) -> LoopbackHub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Answer from now on."""
        self._server = _Server(("127.0.0.1", self._port), type("Handler", (_Handler,), {"hub": self}))
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Go away: open connections end, and new ones are refused. What was stored stays."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            for connection in list(self.connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def add_user(self, name: str, write: bool = True) -> str:
        """Return a token of a user, who owns the repositories ``<name>/...``."""
        token = f"hf_{secrets.token_hex(17)}"
        self._users[token] = (name, write)
        return token

    def fail(self, pattern: str, **how: Any) -> None:
        """Break the next requests; see `Fault`."""
        self.faults.append(Fault(pattern, **how))

    def commits(self, repo_id: str, revision: str = "main") -> list[Commit]:
        """Commits, the newest first; the last is the one that made the repository."""
        return self.repos[repo_id].history(revision)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Files, as they would be downloaded."""
        return {path: file.content for path, file in self.commits(repo_id, revision)[0].files.items()}

    def commit(self, repo_id: str, files: dict[str, bytes], revision: str = "main") -> Commit:
        """Commit files with any names behind the protocol's back; makes the repository where there is none."""
        with self._lock:
            repo = self.repos.get(repo_id) or self._create(repo_id, private=False)
            head = repo.history(revision)[0]
            added = {path: File(content, path.endswith(_LFS_SUFFIXES)) for path, content in files.items()}
            repo.large |= {file.sha256: file.content for file in added.values()}
            return repo.add(revision, "Commit", repo.owner, head.files | added, head.oid)

    def take_fault(self, line: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if re.search(fault.pattern, line):
                    fault.times -= 1
                    self.faults = [fault for fault in self.faults if fault.times > 0]
                    return fault
        return None

    def answer(self, call: Request) -> Answer:
        path = urlsplit(call.path).path
        try:
            if call.token is not None and call.token not in self._users:
                raise _refusal(401, "Invalid credentials in Authorization header")
            for method, pattern, function in _ROUTES:
                match = pattern.fullmatch(path)
                if match and method == call.method:
                    parts = {name: unquote(part) for name, part in match.groupdict(default="").items()}
                    with self._lock:
                        answer = function(self, call, **parts)
                    return answer if isinstance(answer, Answer) else _json(answer)
            return _refusal(404, f"the loopback hub has no {call.method} {path}")
        except Answer as refusal:
            return refusal

    # What follows answers requests, with JSON or an `Answer`.

    def _create(self, repo_id: str, private: bool) -> Repo:
        repo = self.repos[repo_id] = Repo(repo_id, private)
        repo.add("main", "initial commit", repo.owner, {".gitattributes": File(_ATTRIBUTES)}, None)
        return repo

    def _user(self, call: Request) -> str:
        if call.token is None:
            raise _refusal(401, "Invalid username or password.")
        return self._users[call.token][0]

    def _readable(self, call: Request, repo_id: str) -> Repo:
        repo = self.repos.get(repo_id)
        if repo is None or repo.private and (call.token is None or self._user(call) != repo.owner):
            # Who may not know that it exists is told the same as if it did not.
            raise _refusal(404 if call.token else 401, "Repository not found", "RepoNotFound")
        return repo

    def _granted(self, call: Request, repo_id: str) -> Repo:
        """A repository whose files may be read."""
        repo = self._readable(call, repo_id)
        user = None if call.token is None else self._user(call)
        if repo.readers is not None and user not in {*repo.readers, repo.owner}:
            status = 401 if user is None else 403
            raise _refusal(status, f"Access to {repo.id} is restricted", "GatedRepo")
        return repo

    def _writable(self, call: Request, repo_id: str) -> Repo:
        repo = self._readable(call, repo_id)
        self._check_writer(call, repo.owner)
        return repo

    def _check_writer(self, call: Request, namespace: str) -> None:
        if self._user(call) != namespace or not self._users[call.token or ""][1]:
            raise _refusal(403, f"You don't have the rights to write to the namespace '{namespace}'")

    @_route("GET HEAD", "/")
    def _home(self, call: Request) -> Answer:
        return Answer(b"a hub")

    @_route("GET", "/api/whoami-v2")
    def _whoami(self, call: Request) -> Any:
        user = self._user(call)
        role = "write" if self._users[call.token or ""][1] else "read"
        access = {"displayName": "token", "role": role}
        return {"type": "user", "name": user, "fullname": user, "orgs": [], "auth": {"accessToken": access}}

    @_route("POST", "/api/repos/create")
    def _create_repo(self, call: Request) -> Any:
        asked = json.loads(call.body)
        namespace = asked.get("organization") or self._user(call)
        self._check_writer(call, namespace)
        repo_id = f"{namespace}/{asked['name']}"
        key = f"datasets/{repo_id}" if asked.get("type") == "dataset" else repo_id
        url = f"{self.endpoint}/{key}"
        if key in self.repos:
            raise _refusal(409, "You already created this repo", url=url)
        self._create(key, private=asked.get("visibility") == "private")
        return {"url": url, "name": repo_id, "id": repo_id}

    @_route("DELETE", "/api/repos/delete")
    def _delete_repo(self, call: Request) -> Any:
        asked = json.loads(call.body)
        kind = "datasets/" if asked.get("type") == "dataset" else ""
        repo = self._writable(call, f"{kind}{asked.get('organization') or self._user(call)}/{asked['name']}")
        del self.repos[repo.id]
        return {}

    @_route("POST", "/api/validate-yaml")
    def _validate_yaml(self, call: Request) -> Any:
        card = json.loads(call.body)["content"]
        if not card.startswith("---\n"):
            return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
        if "\n---\n" not in card[3:]:
            raise _refusal(400, "bad metadata", errors=[{"message": "the metadata do not end"}], warnings=[])
        return {"errors": [], "warnings": []}

    @_route("GET", f"{_API}(?:/revision/{_REVISION})?")
    def _info(self, call: Request, repo_id: str, revision: str) -> Any:
        repo = self._readable(call, repo_id)
        history = repo.history(revision or "main")
        head = history[0]
        siblings = []
        for path, file in head.files.items():
            blob: dict[str, Any] = {"size": len(file.content), "blobId": file.oid}
            if file.lfs:
                blob["lfs"] = {"size": len(file.content), "sha256": file.sha256, "pointerSize": 130}
            siblings.append({"rfilename": path} | (blob if "blobs" in call.query else {}))
        name = repo.id.removeprefix("datasets/")
        about = {"id": name, "modelId": name, "author": repo.owner, "sha": head.oid, "private": repo.private}
        about |= {"createdAt": history[-1].date, "lastModified": head.date, "siblings": siblings}
        about |= {"gated": repo.readers is not None and "manual", "disabled": False, "tags": []}
        if "config.json" in head.files:
            with suppress(ValueError):
                about["config"] = json.loads(head.files["config.json"].content)
        parameters = _parameters(head.files)
        total = sum(parameters.values())
        return about | ({"safetensors": {"parameters": parameters, "total": total}} if parameters else {})

    @_route("GET", f"{_API}/refs")
    def _refs(self, call: Request, repo_id: str) -> Any:
        repo = self._readable(call, repo_id)
        refs: dict[str, list[dict[str, str]]] = {"branches": [], "pullRequests": [], "converts": []}
        for name, oid in repo.branches.items():
            pull = name.startswith("refs/pr/")
            entry = {"name": name.removeprefix("refs/"), "ref": name if pull else f"refs/heads/{name}"}
            refs["pullRequests" if pull else "branches"].append(entry | {"targetCommit": oid})
        tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid} for name, oid in repo.tags.items()]
        return refs | {"tags": tags}

    @_route("GET", f"{_API}/commits/{_REVISION}")
    def _history(self, call: Request, repo_id: str, revision: str) -> Any:
        commits = self._readable(call, repo_id).history(revision)
        return [
            {"id": commit.oid, "title": commit.title, "message": "", "date": commit.date}
            | {"authors": [{"user": commit.author}]}
            for commit in commits
        ]

    @_route("GET", f"{_API}/tree/{_REVISION}(?:/(?P<folder>.*))?")
    def _tree(self, call: Request, repo_id: str, revision: str, folder: str) -> Any:
        entries = _entries(self._readable(call, repo_id).history(revision)[0])
        if "expand" in call.query:
            entries = [entry | {"lastCommit": None, "securityFileStatus": None} for entry in entries]
        inside = [entry for entry in entries if not folder or entry["path"].startswith(f"{folder}/")]
        if folder and not inside:
            raise _refusal(404, f"{folder} does not exist on '{revision}'", "EntryNotFound")
        depth = folder.count("/") + 1 if folder else 0
        recursive = call.query.get("recursive", "").lower() == "true"
        return [entry for entry in inside if recursive or entry["path"].count("/") == depth]

    @_route("POST", f"{_API}/paths-info/{_REVISION}")
    def _paths_info(self, call: Request, repo_id: str, revision: str) -> Any:
        asked = parse_qs(call.body.decode()).get("paths", [])
        entries = _entries(self._readable(call, repo_id).history(revision)[0])
        return [entry for entry in entries if entry["path"] in asked]

    @_route("POST DELETE", f"{_API}/(?P<kind>branch|tag)/(?P<name>[^/]+)")
    def _change_ref(self, call: Request, repo_id: str, kind: str, name: str) -> Any:
        repo = self._writable(call, repo_id)
        refs = repo.tags if kind == "tag" else repo.branches
        if call.method == "DELETE":
            if name not in refs or name == "main":
                raise _refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
            del refs[name]
            return {}
        asked = json.loads(call.body)
        # The address of a new tag names the revision that gets it.
        source, name = (name, asked["tag"]) if kind == "tag" else (asked.get("startingPoint", "main"), name)
        if name in refs:
            raise _refusal(409, f"Reference already exists: {name}")
        refs[name] = repo.history(source)[0].oid
        return {}

    def _contributed(self, call: Request, repo_id: str) -> Repo:
        """The repository of an upload: anybody who can read it may open a pull request."""
        self._user(call)
        return self._readable(call, repo_id) if "create_pr" in call.query else self._writable(call, repo_id)

    @_route("POST", f"{_API}/preupload/{_REVISION}")
    def _preupload(self, call: Request, repo_id: str, revision: str) -> Any:
        files = self._contributed(call, repo_id).history(revision)[0].files
        modes = []
        for asked in json.loads(call.body)["files"]:
            path, binary = asked["path"], b"\0" in base64.b64decode(asked["sample"])
            lfs = path.endswith(_LFS_SUFFIXES) or asked["size"] > _LFS_SIZE or binary
            mode = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            known = files.get(path)
            # By this the client sees that a file has not changed.
            modes.append(mode | ({"oid": known.sha256 if known.lfs else known.oid} if known else {}))
        return {"files": modes}

    @_route("POST", rf"/{_ID}\.git/info/lfs/objects/batch")
    def _lfs_batch(self, call: Request, repo_id: str) -> Any:
        self._user(call)
        repo = self._readable(call, repo_id)
        objects = [{"oid": asked["oid"], "size": asked["size"]} for asked in json.loads(call.body)["objects"]]
        for entry in objects:
            if self.xet_only:
                entry["error"] = {"code": 400, "message": _XET_ONLY}
            elif entry["oid"] not in repo.large:
                verify = f"{self.endpoint}/api/lfs-verify/{repo_id}"
                entry["actions"] = {"upload": {"href": self._signed(repo, entry["oid"])}, "verify": {"href": verify}}
        return {"transfer": "basic", "objects": objects}

    def _signed(self, repo: Repo, oid: str) -> str:
        return f"http://localhost:{self._port}/storage/{repo.id}/{oid}?signature={self._signature}"

    @_route("GET PUT", _STORAGE)
    def _storage(self, call: Request, repo_id: str, oid: str) -> Any:
        if call.query.get("signature") != self._signature:
            raise _refusal(403, "the signature is wrong")
        large = self.repos[repo_id].large
        if self.xet_only:
            raise _refusal(400, _XET_ONLY)
        if call.method == "GET":
            return Answer(large[oid], headers={"ETag": f'"{oid}"'})
        if hashlib.sha256(call.body).hexdigest() != oid:
            raise _refusal(400, "the content is not what its name says")
        large[oid] = call.body
        return {}

    @_route("POST", f"/api/lfs-verify/{_ID}")
    def _lfs_verify(self, call: Request, repo_id: str) -> Any:
        asked = json.loads(call.body)
        if len(self._readable(call, repo_id).large.get(asked["oid"], b"")) != asked["size"]:
            raise _refusal(404, "the file was not uploaded")
        return {}

    @_route("POST", f"{_API}/commit/{_REVISION}")
    def _commit(self, call: Request, repo_id: str, revision: str) -> Any:
        repo, user = self._contributed(call, repo_id), self._user(call)
        header, *operations = [json.loads(line) for line in call.body.splitlines()]
        head = repo.history(revision)[0]
        if header["value"].get("parentCommit", head.oid) != head.oid:
            raise _refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for operation in operations:
            _apply(operation["key"], operation["value"], files, repo)
        pull = sum(name.startswith("refs/pr/") for name in repo.branches) + 1
        branch = f"refs/pr/{pull}" if "create_pr" in call.query else revision
        commit = repo.add(branch, header["value"]["summary"], user, files, head.oid)
        url = f"{self.endpoint}/{repo_id}"
        answer = {"success": True, "commitOid": commit.oid, "commitUrl": f"{url}/commit/{commit.oid}"}
        return answer | ({"pullRequestUrl": f"{url}/discussions/{pull}"} if "create_pr" in call.query else {})

    @_route("GET HEAD", f"/{_ID}/resolve/{_REVISION}/(?P<path>.+)")
    def _resolve(self, call: Request, repo_id: str, revision: str, path: str) -> Answer:
        repo = self._granted(call, repo_id)
        head = repo.history(revision)[0]
        file = head.files.get(path)
        headers = {"X-Repo-Commit": head.oid}
        if file is None:
            refusal = _refusal(404, "Entry not found", "EntryNotFound")
            raise replace(refusal, headers=refusal.headers | headers)
        headers["ETag"] = f'"{file.oid}"'
        if not file.lfs:
            return Answer(file.content, headers=headers)
        if self.xet_only:
            kind = "" if repo_id.startswith("datasets/") else "models/"
            token = f"{self.endpoint}/api/{kind}{repo_id}/xet-read-token/{head.oid}"
            headers |= {"X-Xet-Hash": file.sha256, "Link": f'<{token}>; rel="xet-auth"'}
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        return Answer(status=302, headers=headers | {"Location": self._signed(repo, file.sha256)})


def reserve_port() -> tuple[int, socket.socket]:
    """A free port of 127.0.0.1 that nobody else gets while the socket returned lives, and that refuses connections."""
    reserved = socket.socket()
    _share(reserved)
    reserved.bind(("127.0.0.1", 0))
    return reserved.getsockname()[1], reserved


def _share(port: socket.socket) -> None:
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _entries(commit: Commit) -> list[dict[str, Any]]:
    """Folders and files of a commit, as a tree lists them."""
    folders = {"/".join(path.split("/")[:depth]) for path in commit.files for depth in range(1, path.count("/") + 1)}
    entries: list[dict[str, Any]] = [
        {"type": "directory", "path": folder, "oid": hashlib.sha1(folder.encode()).hexdigest(), "size": 0}
        for folder in sorted(folders)
    ]
    for path, file in commit.files.items():
        size = len(file.content)
        large = {"lfs": {"oid": file.sha256, "size": size, "pointerSize": 130}} if file.lfs else {}
        entries.append({"type": "file", "path": path, "oid": file.oid, "size": size} | large)
    return entries


def _parameters(files: dict[str, File]) -> dict[str, int]:
    """Numbers of parameters by dtype, from the headers of the weights."""
    counts: Counter[str] = Counter()
    for path, file in files.items():
        if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", path):
            with suppress(ValueError, struct.error):
                length = struct.unpack("<Q", file.content[:8])[0]
                header = json.loads(file.content[8 : 8 + length])
                header.pop("__metadata__", None)
                for tensor in header.values():
                    counts[tensor["dtype"]] += math.prod(tensor["shape"])
    return dict(counts)


def _apply(key: str, value: dict[str, Any], files: dict[str, File], repo: Repo) -> None:
    """Do one operation of a commit to the files."""
    path = value["path"].rstrip("/")
    if any(part in ("", "..", ".git") for part in path.split("/")):
        raise _refusal(400, f"invalid path: {path}")
    if key == "file":
        files[path] = File(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in repo.large:
            raise _refusal(400, f"{path}: its content was not uploaded")
        files[path] = File(repo.large[value["oid"]], lfs=True)
    elif key in ("deletedFile", "deletedFolder"):
        folder = f"{path}/" if key == "deletedFolder" else path
        gone = [name for name in files if name == path or key == "deletedFolder" and name.startswith(folder)]
        if not gone:
            raise _refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        for name in gone:
            del files[name]
    else:
        raise _refusal(400, f"unknown operation: {key}")


class _Cut(Exception):
    """The connection ends here."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        """Share the port with who reserved it; HTTPServer's own would ask a name server for the host's name."""
        _share(self.socket)
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, breaks it where a fault says so, and sends the answer."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.hub.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""

    def _handle(self) -> None:
        call = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        fault = self.hub.take_fault(f"{self.command} {self.path}") or Fault("")
        time.sleep(fault.delay)
        try:
            try:
                call = replace(call, body=self._body(fault.received))
                answer = _json({}, fault.status, **fault.headers) if fault.status else self.hub.answer(call)
                call = replace(call, status=answer.status if fault.sent is None else 0)
            finally:
                # Before the client knows, so that a test sees it.
                self.hub.requests.append(call)
            self._send(answer, fault.sent)
        except _Cut:
            self._cut(fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _body(self, limit: int | None) -> bytes:
        """Read the body; cut the connection after `limit` bytes of it."""
        body = b""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self._read(size, limit, len(body))
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self._read(int(self.headers.get("Content-Length") or 0), limit, 0)
        if limit is not None:
            raise _Cut
        return body

    def _read(self, size: int, limit: int | None, before: int) -> bytes:
        wanted = size if limit is None else min(size, limit - before)
        content = self.rfile.read(wanted)
        if len(content) < size:
            raise _Cut
        return content

    def _send(self, answer: Answer, limit: int | None) -> None:
        """Send an answer, or the part of it that a range asks for; cut the connection after `limit` bytes."""
        body, status, headers = answer.body, answer.status, dict(answer.headers)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and status == 200:
            first, last = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}" if first <= last else f"bytes */{len(body)}"
            body, status = body[first : last + 1], 206 if first <= last else 416
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:limit])
        if limit is not None:
            raise _Cut

    def _cut(self, fault: Fault) -> None:
        self.close_connection = True
        self.hub.connections.discard(self.connection)
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        if fault.leave:
            self.hub.stop()
