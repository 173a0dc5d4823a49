"""A hub in memory on this machine, for tests: the Hugging Face Hub's protocol as its real client and `hf` speak it.

Standard library only. Models only, large files by git-lfs (no xet). What the tests need to see stands open: `requests`
(who asked for what, with which token), `commits(repo_id)`, and `fail(...)` to break the next requests.

Large files are stored and served by another origin (`localhost` rather than `127.0.0.1`), reached by signed addresses,
as on the real hub: a token that is sent there is a leak.
"""

from __future__ import annotations

import base64
import hashlib
import json
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
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

_LFS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".tar", ".npz", ".npy", ".onnx")
_LFS_SIZE = 10_000_000
_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LFS_SUFFIXES).encode()


@dataclass(frozen=True)
class File:
    """A file of a commit."""

    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git_oid(self) -> str:
        content = self.content
        if self.lfs:
            content = (
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(content)}\n".encode()
            )
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        """What the client compares its own file with."""
        return self.sha256 if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    """A commit: all files of the repository after it."""

    oid: str
    parent: str | None
    title: str
    author: str
    files: dict[str, File]
    date: str


@dataclass
class Pull:
    """A pull request, whose commits lie at ``refs/pr/<num>``."""

    num: int
    title: str
    author: str
    target: str
    created: str
    status: str = "open"
    merge_commit: str | None = None


@dataclass
class Repo:
    """A repository and the large files that were uploaded to it."""

    id: str
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[int, Pull] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit:
        """The commit of a branch, tag, pull request or commit id."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        oid = self.branches.get(name) or self.tags.get(name) or revision
        if len(oid) < 40 and re.fullmatch("[0-9a-f]{7,}", oid):
            oid = next((known for known in self.commits if known.startswith(oid)), oid)
        if oid not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def add(self, revision: str, title: str, author: str, files: dict[str, File], parent: Commit | None) -> Commit:
        """Put a commit on a branch or pull request."""
        parts = [parent.oid if parent else "", title, str(len(self.commits))]
        parts += [f"{path} {file.git_oid}" for path, file in sorted(files.items())]
        oid = hashlib.sha1("\n".join(parts).encode()).hexdigest()
        commit = Commit(oid, parent.oid if parent else None, title, author, files, _now())
        self.commits[oid] = commit
        self.branches[revision] = oid
        return commit

    def history(self, revision: str) -> list[Commit]:
        """Commits of a revision, the newest first."""
        commits = [self.resolve(revision)]
        while parent := commits[-1].parent:
            commits.append(self.commits[parent])
        return commits


@dataclass(frozen=True)
class Request:
    """A request that was answered; status 0 where the connection was cut."""

    method: str
    path: str
    host: str
    token: str | None
    body: bytes
    status: int = 0


@dataclass
class Fault:
    """See `LoopbackHub.fail`."""

    pattern: str
    times: int
    status: int | None
    headers: dict[str, str]
    received: int | None
    sent: int | None
    delay: float
    reset: bool


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: Any):
        super().__init__(message)
        self.status = status
        self.body = {"error": message} | body
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


@dataclass
class Answer:
    """An answer that is none."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class _Cut(Exception):
    """The connection ends here."""


Route = tuple[str, re.Pattern[str], Callable[..., Any]]
_ROUTES: list[Route] = []
_REPO = r"/api/models/(?P<repo_id>[^/]+/[^/]+)"


def _route(method: str, pattern: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _ROUTES.append((method, re.compile(pattern), function))
        return function

    return register


class LoopbackHub:
    """The hub; use it as a context manager, or `start` and `stop` it, as often as you like.

    Args:
        port: Port on 127.0.0.1; see `reserve_port`.

    Attributes:
        endpoint: Address for ``HF_ENDPOINT``.
        token: Token of the user "ada", who may write.
        requests: Every request that was answered or cut.
    """

    def __init__(self, port: int):
        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"
        self.storage = f"http://localhost:{port}/storage"
        self.requests: list[Request] = []
        self.repos: dict[str, Repo] = {}
        self._users: dict[str, tuple[str, bool]] = {}
        self._signature = secrets.token_hex(16)
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        self._connections: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.token = self.add_user("ada")

    def __enter__(self) -> LoopbackHub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Answer from now on."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = _Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Go away: open connections end, and new ones are refused. What was stored stays."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def add_user(self, name: str, write: bool = True) -> str:
        """Return a token of a user, who owns the repositories ``<name>/...``."""
        token = f"hf_{secrets.token_hex(17)}"
        self._users[token] = (name, write)
        return token

    def fail(
        self,
        pattern: str,
        *,
        times: int = 1,
        status: int | None = None,
        headers: dict[str, str] | None = None,
        received: int | None = None,
        sent: int | None = None,
        delay: float = 0,
        reset: bool = False,
    ) -> None:
        """Break the next requests.

        Args:
            pattern: Regular expression that is searched in ``METHOD /path``.
            times: How many of these requests.
            status: Answer with this status, and do nothing else.
            headers: Headers of that answer, such as ``Retry-After``.
            received: Cut the connection when this many bytes of the request's body were read; nothing is done.
            sent: Cut the connection when this many bytes of the answer's body were sent; what was asked is done.
            delay: Seconds to wait before anything else.
            reset: Whether a cut is a reset (RST), not an end of the stream.
        """
        self._faults.append(Fault(pattern, times, status, headers or {}, received, sent, delay, reset))

    def heal(self) -> None:
        """Forget the faults that are left."""
        with self._lock:
            self._faults.clear()

    def commits(self, repo_id: str, revision: str = "main") -> list[Commit]:
        """Commits of a repository, the newest first; the last is the one that made it."""
        return self.repos[repo_id].history(revision)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        """Files of a repository, as they would be downloaded."""
        return {path: file.content for path, file in self.repos[repo_id].resolve(revision).files.items()}

    def commit(self, repo_id: str, files: dict[str, bytes], revision: str = "main") -> Commit:
        """Commit files behind the protocol's back, with any names; makes the repository where there is none."""
        with self._lock:
            repo = self.repos.get(repo_id) or self._create(repo_id, private=False)
            head = repo.resolve(revision)
            added = {path: File(content, path.endswith(_LFS_SUFFIXES)) for path, content in files.items()}
            repo.large |= {file.sha256: file.content for file in added.values() if file.lfs}
            return repo.add(revision, "Commit", repo_id.split("/")[0], head.files | added, head)

    def _create(self, repo_id: str, private: bool) -> Repo:
        repo = self.repos[repo_id] = Repo(repo_id, private)
        repo.add("main", "initial commit", repo_id.split("/")[0], {".gitattributes": File(_ATTRIBUTES)}, None)
        return repo

    def _fault(self, line: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and re.search(fault.pattern, line):
                    fault.times -= 1
                    return fault
        return None

    # What follows answers requests; `call` is the request, and what is returned is JSON or an `Answer`.

    def _answer(self, call: Request) -> Answer:
        path = urlsplit(call.path).path
        try:
            if call.token is not None and call.token not in self._users:
                raise Refusal(401, "Invalid credentials in Authorization header")
            for method, pattern, function in _ROUTES:
                match = pattern.fullmatch(path)
                if match and method == call.method:
                    with self._lock:
                        parts = {name: unquote(part) for name, part in match.groupdict(default="").items()}
                        answer = function(self, call, **parts)
                    return answer if isinstance(answer, Answer) else _json(answer)
            raise Refusal(404, f"the loopback hub has no {call.method} {path}")
        except Refusal as refusal:
            answer = _json(refusal.body, refusal.status)
            return replace(answer, headers=answer.headers | refusal.headers)

    def _user(self, call: Request) -> str:
        if call.token is None:
            raise Refusal(401, "Invalid username or password.")
        return self._users[call.token][0]

    def _readable(self, call: Request, repo_id: str) -> Repo:
        repo = self.repos.get(repo_id)
        user = self._users[call.token][0] if call.token else None
        if repo is None or repo.private and user != repo_id.split("/")[0]:
            # Who may not know that it exists is told the same as if it did not.
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def _may_write(self, call: Request, namespace: str) -> None:
        user, write = self._user(call), self._users[call.token or ""][1]
        if user != namespace or not write:
            raise Refusal(403, f"You don't have the rights to write to the namespace '{namespace}'")

    def _writable(self, call: Request, repo_id: str) -> Repo:
        repo = self._readable(call, repo_id)
        self._may_write(call, repo_id.split("/")[0])
        return repo

    @_route("HEAD", "/")
    @_route("GET", "/")
    def _home(self, call: Request) -> Answer:
        return Answer(b"a hub")

    @_route("GET", "/api/whoami-v2")
    def _whoami(self, call: Request) -> Any:
        user = self._user(call)
        role = "write" if self._users[call.token or ""][1] else "read"
        access = {"displayName": "token", "role": role, "createdAt": _now()}
        return {"type": "user", "name": user, "fullname": user, "orgs": [], "auth": {"accessToken": access}}

    @_route("POST", "/api/repos/create")
    def _create_repo(self, call: Request) -> Any:
        asked = json.loads(call.body)
        if asked.get("type", "model") != "model":
            raise Refusal(400, "the loopback hub keeps models only")
        namespace = asked.get("organization") or self._user(call)
        repo_id = f"{namespace}/{asked['name']}"
        self._may_write(call, namespace)
        url = f"{self.endpoint}/{repo_id}"
        if repo_id in self.repos:
            raise Refusal(409, "You already created this model repo", url=url)
        self._create(repo_id, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        return {"url": url, "name": repo_id, "id": repo_id}

    @_route("DELETE", "/api/repos/delete")
    def _delete_repo(self, call: Request) -> Any:
        asked = json.loads(call.body)
        repo = self._writable(call, f"{asked.get('organization') or self._user(call)}/{asked['name']}")
        del self.repos[repo.id]
        return {}

    @_route("POST", "/api/validate-yaml")
    def _validate_yaml(self, call: Request) -> Any:
        content = json.loads(call.body)["content"]
        if not content.startswith("---\n"):
            return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
        if "\n---\n" not in content[3:]:
            message = "the metadata of the card do not end"
            raise Refusal(400, message, errors=[{"message": message}], warnings=[])
        return {"errors": [], "warnings": []}

    @_route("GET", "/api/models")
    def _list(self, call: Request) -> Any:
        query = parse_qs(urlsplit(call.path).query)
        user = self._users[call.token][0] if call.token else None
        repos = [repo for repo in self.repos.values() if not repo.private or repo.id.startswith(f"{user}/")]
        if "author" in query:
            repos = [repo for repo in repos if repo.id.startswith(f"{query['author'][0]}/")]
        if "search" in query:
            repos = [repo for repo in repos if query["search"][0].lower() in repo.id.lower()]
        return [self._about(repo, repo.resolve("main"), blobs=False) for repo in repos]

    @_route("GET", _REPO + "(?:/revision/(?P<revision>[^/]+))?")
    def _info(self, call: Request, repo_id: str, revision: str) -> Any:
        repo = self._readable(call, repo_id)
        return self._about(
            repo, repo.resolve(revision or "main"), blobs="blobs" in parse_qs(urlsplit(call.path).query)
        )

    def _about(self, repo: Repo, commit: Commit, blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in commit.files]
        if blobs:
            for sibling, file in zip(siblings, commit.files.values(), strict=True):
                sibling |= {"size": len(file.content), "blobId": file.git_oid}
                if file.lfs:
                    sibling["lfs"] = {"size": len(file.content), "sha256": file.sha256, "pointerSize": 130}
        about = {
            "id": repo.id,
            "modelId": repo.id,
            "author": repo.id.split("/")[0],
            "sha": commit.oid,
            "private": repo.private,
            "gated": False,
            "disabled": False,
            "tags": [],
            "createdAt": repo.history(commit.oid)[-1].date,
            "lastModified": commit.date,
            "siblings": siblings,
        }
        if "config.json" in commit.files:
            with suppress(ValueError):
                about["config"] = json.loads(commit.files["config.json"].content)
        parameters = _parameters(commit.files)
        if parameters:
            about["safetensors"] = {"parameters": parameters, "total": sum(parameters.values())}
        return about

    @_route("GET", _REPO + "/auth-check(?P<write>/write)?")
    def _auth_check(self, call: Request, repo_id: str, write: str) -> Any:
        self._writable(call, repo_id) if write else self._readable(call, repo_id)
        return {}

    @_route("GET", _REPO + "/refs")
    def _refs(self, call: Request, repo_id: str) -> Any:
        repo = self._readable(call, repo_id)

        def entry(name: str, ref: str, oid: str) -> dict[str, str]:
            return {"name": name, "ref": ref, "targetCommit": oid}

        pulls = {name: oid for name, oid in repo.branches.items() if name.startswith("refs/pr/")}
        return {
            "branches": [entry(n, f"refs/heads/{n}", oid) for n, oid in repo.branches.items() if n not in pulls],
            "tags": [entry(name, f"refs/tags/{name}", oid) for name, oid in repo.tags.items()],
            "pullRequests": [entry(name.removeprefix("refs/"), name, oid) for name, oid in pulls.items()],
            "converts": [],
        }

    @_route("GET", _REPO + "/commits/(?P<revision>[^/]+)")
    def _history(self, call: Request, repo_id: str, revision: str) -> Any:
        return [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": "",
                "authors": [{"user": commit.author}],
                "date": commit.date,
            }
            for commit in self._readable(call, repo_id).history(revision)
        ]

    @_route("GET", _REPO + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?")
    def _tree(self, call: Request, repo_id: str, revision: str, folder: str) -> Any:
        commit = self._readable(call, repo_id).resolve(revision)
        recursive = parse_qs(urlsplit(call.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = [entry for entry in _entries(commit) if not folder or entry["path"].startswith(f"{folder}/")]
        if folder and not entries:
            raise Refusal(404, f"{folder} does not exist on '{revision}'", "EntryNotFound")
        depth = folder.count("/") + 1 if folder else 0
        return [entry for entry in entries if recursive or entry["path"].count("/") == depth]

    @_route("POST", _REPO + "/paths-info/(?P<revision>[^/]+)")
    def _paths_info(self, call: Request, repo_id: str, revision: str) -> Any:
        commit = self._readable(call, repo_id).resolve(revision)
        asked = parse_qs(call.body.decode()).get("paths", [])
        return [entry for entry in _entries(commit) if entry["path"] in asked]

    @_route("POST", _REPO + "/(?P<kind>branch|tag)/(?P<name>[^/]+)")
    def _add_ref(self, call: Request, repo_id: str, kind: str, name: str) -> Any:
        repo = self._writable(call, repo_id)
        asked = json.loads(call.body or b"{}")
        # The address of a new tag names the revision that gets it.
        source, refs = (name, repo.tags) if kind == "tag" else (asked.get("startingPoint", "main"), repo.branches)
        name = asked.get("tag", name)
        if name in refs:
            raise Refusal(409, f"Reference already exists: {name}")
        refs[name] = repo.resolve(source).oid
        return {}

    @_route("DELETE", _REPO + "/(?P<kind>branch|tag)/(?P<name>[^/]+)")
    def _delete_ref(self, call: Request, repo_id: str, kind: str, name: str) -> Any:
        repo = self._writable(call, repo_id)
        refs = repo.tags if kind == "tag" else repo.branches
        if name not in refs or name == "main":
            raise Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
        del refs[name]
        return {}

    @_route("POST", _REPO + "/preupload/(?P<revision>[^/]+)")
    def _preupload(self, call: Request, repo_id: str, revision: str) -> Any:
        files = self._contributed(call, repo_id).resolve(revision).files
        modes = []
        for asked in json.loads(call.body)["files"]:
            path, known = asked["path"], files.get(asked["path"])
            sample = base64.b64decode(asked["sample"])
            lfs = path.endswith(_LFS_SUFFIXES) or asked["size"] > _LFS_SIZE or b"\0" in sample
            mode = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            modes.append(mode | ({"oid": known.etag} if known else {}))
        return {"files": modes}

    def _contributed(self, call: Request, repo_id: str) -> Repo:
        """The repository of an upload: anybody who can read it may open a pull request."""
        if "create_pr=1" not in urlsplit(call.path).query:
            return self._writable(call, repo_id)
        self._user(call)
        return self._readable(call, repo_id)

    @_route("POST", r"/(?P<repo_id>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
    def _lfs_batch(self, call: Request, repo_id: str) -> Any:
        self._user(call)
        repo = self._readable(call, repo_id)
        objects = []
        for asked in json.loads(call.body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in repo.large:
                upload = {"href": f"{self.storage}/{repo_id}/{asked['oid']}?signature={self._signature}"}
                verify = {"href": f"{self.endpoint}/api/lfs-verify/{repo_id}"}
                entry["actions"] = {"upload": upload, "verify": verify}
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    @_route("PUT", r"/storage/(?P<repo_id>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})")
    def _lfs_put(self, call: Request, repo_id: str, oid: str) -> Any:
        self._signed(call)
        if hashlib.sha256(call.body).hexdigest() != oid:
            raise Refusal(400, "the content is not what its name says")
        self.repos[repo_id].large[oid] = call.body
        return {}

    @_route("GET", r"/storage/(?P<repo_id>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})")
    def _lfs_get(self, call: Request, repo_id: str, oid: str) -> Any:
        self._signed(call)
        return Answer(self.repos[repo_id].large[oid], headers={"ETag": f'"{oid}"'})

    def _signed(self, call: Request) -> None:
        if parse_qs(urlsplit(call.path).query).get("signature") != [self._signature]:
            raise Refusal(403, "the signature is wrong")

    @_route("POST", r"/api/lfs-verify/(?P<repo_id>[^/]+/[^/]+)")
    def _lfs_verify(self, call: Request, repo_id: str) -> Any:
        asked = json.loads(call.body)
        if len(self._readable(call, repo_id).large.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(404, "the file was not uploaded")
        return {}

    @_route("POST", _REPO + "/commit/(?P<revision>[^/]+)")
    def _commit(self, call: Request, repo_id: str, revision: str) -> Any:
        repo, user = self._contributed(call, repo_id), self._user(call)
        if not call.body.endswith(b"\n"):
            raise Refusal(400, "the commit is not whole")
        header, *operations = [json.loads(line) for line in call.body.splitlines()]
        head = repo.resolve(revision)
        title = header["value"]["summary"]
        if header["value"].get("parentCommit", head.oid) != head.oid:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for operation in operations:
            _apply(operation["key"], operation["value"], files, repo)
        pull = None
        if "create_pr=1" in urlsplit(call.path).query:
            pull = self._open(repo, title, user, revision)
        commit = repo.add(f"refs/pr/{pull.num}" if pull else revision, title, user, files, head)
        answer = {
            "success": True,
            "commitOid": commit.oid,
            "commitUrl": f"{self.endpoint}/{repo_id}/commit/{commit.oid}",
        }
        return answer | ({"pullRequestUrl": f"{self.endpoint}/{repo_id}/discussions/{pull.num}"} if pull else {})

    def _open(self, repo: Repo, title: str, user: str, target: str) -> Pull:
        num = len(repo.pulls) + 1
        repo.pulls[num] = Pull(num, title, user, target, _now())
        repo.branches[f"refs/pr/{num}"] = repo.resolve(target).oid
        return repo.pulls[num]

    @_route("POST", _REPO + "/discussions")
    def _discuss(self, call: Request, repo_id: str) -> Any:
        repo, asked = self._readable(call, repo_id), json.loads(call.body)
        if not asked.get("pullRequest"):
            raise Refusal(400, "the loopback hub has pull requests only")
        return {"num": self._open(repo, asked["title"], self._user(call), "main").num}

    @_route("GET", _REPO + "/discussions")
    def _discussions(self, call: Request, repo_id: str) -> Any:
        repo = self._readable(call, repo_id)
        entries = [_discussion(repo, pull) for pull in repo.pulls.values()]
        return {"discussions": entries, "count": len(entries), "start": 0}

    @_route("GET", _REPO + "/discussions/(?P<num>[0-9]+)")
    def _discussion_details(self, call: Request, repo_id: str, num: str) -> Any:
        repo = self._readable(call, repo_id)
        return _discussion(repo, _pull(repo, num))

    @_route("POST", _REPO + "/discussions/(?P<num>[0-9]+)/merge")
    def _merge(self, call: Request, repo_id: str, num: str) -> Any:
        repo = self._writable(call, repo_id)
        pull = _pull(repo, num)
        ours, theirs = repo.resolve(pull.target), repo.resolve(f"refs/pr/{num}")
        base = next(commit for commit in repo.history(theirs.oid) if commit in repo.history(ours.oid))
        changed = {path: file for path, file in theirs.files.items() if base.files.get(path) != file}
        files = {path: file for path, file in ours.files.items() if path in theirs.files or path not in base.files}
        merged = repo.add(pull.target, f"{pull.title} (#{num})", self._user(call), files | changed, ours)
        pull.status, pull.merge_commit = "merged", merged.oid
        return {}

    @_route("HEAD", r"/(?P<repo_id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    @_route("GET", r"/(?P<repo_id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def _resolve(self, call: Request, repo_id: str, revision: str, path: str) -> Answer:
        repo = self._readable(call, repo_id)
        commit = repo.resolve(revision)
        headers = {"X-Repo-Commit": commit.oid}
        file = commit.files.get(path)
        if file is None:
            refusal = Refusal(404, "Entry not found", "EntryNotFound")
            refusal.headers |= headers
            raise refusal
        headers["ETag"] = f'"{file.git_oid}"'
        if not file.lfs:
            return Answer(file.content, headers=headers)
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        headers["Location"] = f"{self.storage}/{repo_id}/{file.sha256}?signature={self._signature}"
        return Answer(b"Found", 302, headers)


def reserve_port() -> tuple[int, socket.socket]:
    """A free port of 127.0.0.1 that nobody else gets while the socket returned lives, and that refuses connections."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved.getsockname()[1], reserved


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


def _entries(commit: Commit) -> list[dict[str, Any]]:
    """Files and folders of a commit, as a tree lists them."""
    folders = {"/".join(path.split("/")[:depth]) for path in commit.files for depth in range(1, path.count("/") + 1)}
    entries: list[dict[str, Any]] = [
        {"type": "directory", "path": folder, "oid": hashlib.sha1(folder.encode()).hexdigest(), "size": 0}
        for folder in sorted(folders)
    ]
    for path, file in commit.files.items():
        entry = {"type": "file", "path": path, "oid": file.git_oid, "size": len(file.content)}
        if file.lfs:
            entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 130}
        entries.append(entry)
    return entries


def _parameters(files: dict[str, File]) -> dict[str, int]:
    """Numbers of parameters by dtype, from the headers of the weights."""
    counts: Counter[str] = Counter()
    for path, file in files.items():
        if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", path):
            with suppress(ValueError, struct.error):
                length = struct.unpack("<Q", file.content[:8])[0]
                header = json.loads(file.content[8 : 8 + length])
                for name, tensor in header.items():
                    if name != "__metadata__":
                        counts[tensor["dtype"]] += _product(tensor["shape"])
    return dict(counts)


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _apply(key: str, value: dict[str, Any], files: dict[str, File], repo: Repo) -> None:
    """Do one operation of a commit to the files."""
    path = value["path"]
    if path.startswith("/") or any(part in ("", "..", ".git") for part in path.rstrip("/").split("/")):
        raise Refusal(400, f"invalid path: {path}")
    if key == "file":
        files[path] = File(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in repo.large:
            raise Refusal(400, f"{path}: its content was not uploaded")
        files[path] = File(repo.large[value["oid"]], lfs=True)
    elif key in ("deletedFile", "deletedFolder"):
        gone = [
            name
            for name in files
            if name == path or key == "deletedFolder" and name.startswith(f"{path.rstrip('/')}/")
        ]
        if not gone:
            raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        for name in gone:
            del files[name]
    else:
        raise Refusal(400, f"unknown operation: {key}")


def _pull(repo: Repo, num: str) -> Pull:
    if int(num) not in repo.pulls:
        raise Refusal(404, f"there is no discussion {num}")
    return repo.pulls[int(num)]


def _discussion(repo: Repo, pull: Pull) -> dict[str, Any]:
    return {
        "num": pull.num,
        "title": pull.title,
        "author": {"name": pull.author},
        "createdAt": pull.created,
        "status": pull.status,
        "repo": {"name": repo.id, "type": "model"},
        "isPullRequest": True,
        "changes": {"base": f"refs/heads/{pull.target}", "mergeCommitId": pull.merge_commit},
        "filesWithConflicts": [],
        "events": [],
        "diff": "",
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, breaks it where a fault says so, and sends the answer."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.hub._connections.add(self.connection)

    def finish(self) -> None:
        self.hub._connections.discard(self.connection)
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing."""

    def _handle(self) -> None:
        authorization = self.headers.get("Authorization", "")
        token = authorization.removeprefix("Bearer ") or None
        call = Request(self.command, self.path, self.headers.get("Host", ""), token, b"")
        fault = self.hub._fault(f"{self.command} {self.path}")
        try:
            if fault:
                time.sleep(fault.delay)
            try:
                call = replace(call, body=self._body(fault.received if fault else None))
            except _Cut:
                self.hub.requests.append(call)
                raise
            if fault and fault.status is not None:
                answer = _json({"error": "a fault"}, fault.status)
                answer = replace(answer, headers=answer.headers | fault.headers)
            else:
                answer = self.hub._answer(call)
            cut = fault is not None and fault.sent is not None
            # Noted before the client knows, so that a test sees it.
            self.hub.requests.append(replace(call, status=0 if cut else answer.status))
            self._send(answer, fault.sent if fault else None)
        except _Cut:
            self._cut(reset=fault is not None and fault.reset)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _body(self, limit: int | None) -> bytes:
        """Read the body; cut the connection after `limit` bytes of it."""
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.handle_expect_100()
        body = b""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self._read(size, limit, len(body))
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self._read(int(self.headers.get("Content-Length") or 0), limit, 0)
        if limit is not None:
            raise _Cut
        return body

    def _read(self, size: int, limit: int | None, before: int) -> bytes:
        if limit is not None and before + size > limit:
            self.rfile.read(limit - before)
            raise _Cut
        content = self.rfile.read(size)
        if len(content) < size:
            raise _Cut
        return content

    def _send(self, answer: Answer, limit: int | None) -> None:
        """Send an answer, or the part of it that a range asks for; cut the connection after `limit` bytes."""
        body, status, headers = answer.body, answer.status, dict(answer.headers)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and status == 200:
            first, last = int(asked[1]), min(int(asked[2] or len(body)), len(body) - 1)
            if first > last:
                body, status, headers["Content-Range"] = b"", 416, f"bytes */{len(body)}"
            else:
                headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
                body, status = body[first : last + 1], 206
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if limit is None else body[:limit])
        if limit is not None:
            raise _Cut

    def _cut(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
