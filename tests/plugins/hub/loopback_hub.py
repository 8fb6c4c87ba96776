"""The few answers of the Hugging Face Hub that uploading and downloading need, on the loopback device."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

LARGE = "*.safetensors"
API = "/api/models/(?P<repo>[^/]+/[^/]+)"


class LoopbackHub:
    """Repositories as lists of commits, each with its id and the files at that time.

    Attributes:
        repos: By name.
        requests: Method and path of every request.
        before_commit: Called before a commit is accepted, if set.
    """

    def __init__(self):
        self.repos, self.requests, self.objects, self.before_commit = {}, [], {}, None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                hub.answer(self)

            do_GET = do_POST = do_PUT = do_HEAD

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    # Repositories ----------------------------------------------------------------------------------------------

    def commit(self, repo, changes):
        files = {**(self.repos[repo][-1][1] if self.repos.get(repo) else {}), **changes}
        files = {path: content for path, content in files.items() if content is not None}
        sha = hashlib.sha1(f"{repo} {len(self.repos.get(repo, []))} {sorted(files)}".encode()).hexdigest()
        self.repos.setdefault(repo, []).append((sha, files))
        return sha

    def files(self, repo):
        return self.repos[repo][-1][1]

    def at(self, repo, revision):
        if revision == "main":
            return self.repos[repo][-1]
        return next(commit for commit in self.repos[repo] if commit[0] == revision)

    # Requests --------------------------------------------------------------------------------------------------

    def answer(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if request.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(lambda: self.chunk(request.rfile), b""))
        path = unquote(urlsplit(request.path).path)
        self.requests.append((request.command, path))
        for method, pattern, respond in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and request.command in method.split():
                status, headers, content = respond(self, body, **match.groupdict())
                break
        else:
            status, headers, content = 404, {}, b"{}"
        request.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)

    @staticmethod
    def chunk(stream):
        content = stream.read(int(stream.readline(), 16))
        stream.readline()
        return content

    @staticmethod
    def json(content, status=200):
        return status, {"Content-Type": "application/json"}, json.dumps(content).encode()

    def validate(self, body):
        _, front, _ = json.loads(body)["content"].split("---\n", 2)
        entries = yaml.safe_load(front)
        wrong = [] if isinstance(entries["tags"], list) else [{"message": "tags must be a list"}]
        return self.json({"errors": wrong, "warnings": []}, 400 if wrong else 200)

    def create(self, body):
        asked = json.loads(body)
        repo = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if repo in self.repos:
            return self.json({"error": "exists", "url": f"{self.address}/{repo}"}, 409)
        self.commit(repo, {".gitattributes": b"*.safetensors filter=lfs\n"})
        return self.json({"url": f"{self.address}/{repo}", "name": repo, "id": "1"})

    def whoami(self, _):
        return self.json({"name": "me", "type": "user", "orgs": []})

    def info(self, _, repo, revision="main"):
        if repo not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        sha, files = self.at(repo, revision)
        return self.json({"id": repo, "modelId": repo, "sha": sha, "siblings": [{"rfilename": path} for path in files]})

    def tree(self, _, repo, revision):
        entries = self.at(repo, revision)[1].items()
        return self.json(
            [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in entries
            ]
        )

    def preupload(self, body, repo, revision):
        files = json.loads(body)["files"]
        modes = {file["path"]: "lfs" if fnmatch.fnmatch(file["path"], LARGE) else "regular" for file in files}
        return self.json(
            {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]}
        )

    def batch(self, body, repo):
        objects = json.loads(body)["objects"]
        hrefs = {each["oid"]: f"{self.address}/objects/{each['oid']}" for each in objects}
        return self.json(
            {
                "transfer": "basic",
                "objects": [{**each, "actions": {"upload": {"href": hrefs[each["oid"]]}}} for each in objects],
            }
        )

    def put(self, body, oid):
        assert hashlib.sha256(body).hexdigest() == oid
        self.objects[oid] = body
        return 200, {}, b""

    def accept(self, body, repo, revision):
        if self.before_commit is not None:
            self.before_commit()
        changes, parent = {}, None
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                parent = value.get("parentCommit")
            elif entry["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                changes[value["path"]] = self.objects[value["oid"]]
            else:
                assert entry["key"] == "deletedFile"
                changes[value["path"]] = None
        if parent != self.repos[repo][-1][0]:
            return self.json({"error": "A commit has happened since. Please refresh and try again."}, 412)
        sha = self.commit(repo, changes)
        return self.json({"success": True, "commitUrl": f"{self.address}/{repo}/commit/{sha}", "commitOid": sha})

    def resolve(self, _, repo, revision, path):
        sha, files = self.at(repo, revision)
        if path not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}, b""
        etag = f'"{hashlib.sha1(files[path]).hexdigest()}"'
        return 200, {"X-Repo-Commit": sha, "ETag": etag}, files[path]


ROUTES = [
    ("POST", "/api/repos/create", LoopbackHub.create),
    ("POST", "/api/validate-yaml", LoopbackHub.validate),
    ("GET", "/api/whoami-v2", LoopbackHub.whoami),
    ("GET", API, LoopbackHub.info),
    ("GET", f"{API}/revision/(?P<revision>[^/]+)", LoopbackHub.info),
    ("GET", f"{API}/tree/(?P<revision>[^/]+)/?", LoopbackHub.tree),
    ("POST", f"{API}/preupload/(?P<revision>[^/]+)", LoopbackHub.preupload),
    ("POST", f"{API}/commit/(?P<revision>[^/]+)", LoopbackHub.accept),
    ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", LoopbackHub.batch),
    ("PUT", "/objects/(?P<oid>[0-9a-f]+)", LoopbackHub.put),
    ("GET HEAD", "/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", LoopbackHub.resolve),
]
