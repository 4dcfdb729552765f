"""A Kubernetes API in memory: enough of one for Helm to install, upgrade, roll back and uninstall, and to look things up.

It keeps what it is given, and refuses to change what says that it is immutable. It runs nothing; a Job is done, or has failed, as soon
as it is there.
"""

import copy
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

KINDS = {
    "v1": {"Secret": "secrets", "ConfigMap": "configmaps", "Service": "services", "ServiceAccount": "serviceaccounts",
           "PersistentVolumeClaim": "persistentvolumeclaims", "Pod": "pods", "Namespace": "namespaces"},
    "apps/v1": {"Deployment": "deployments"},
    "batch/v1": {"Job": "jobs"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"},
}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


class Cluster:
    """The API, at `url`, for as long as it is entered."""

    def __enter__(self):
        self.objects, self.version, self.calls, self.jobs_fail = {}, 0, [], False
        handler = type("Handler", (_Handler,), {"cluster": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def kubeconfig(self):
        return yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": self.url}}],
            "users": [{"name": "it", "user": {}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "ota"}}],
        })

    def get(self, resource, name, namespace="ota"):
        return self.objects.get((resource, namespace, name))

    def delete(self, resource, name, namespace="ota"):
        del self.objects[resource, namespace, name]
        self.calls.append(("delete", resource, name))

    def store(self, key, new):
        """Writes an object, or says why not."""
        old = self.objects.get(key)
        if old and old.get("immutable") and (not new.get("immutable") or old.get("data") != new.get("data")):
            return 422, _status(422, "Invalid", f'Secret "{key[2]}" is invalid: data: Forbidden: field is immutable when `immutable` is set')
        self.version += 1
        if key[0] == "jobs":
            kind = "Failed" if self.jobs_fail else "Complete"
            new["status"] = {"conditions": [{"type": kind, "status": "True", "reason": "BackoffLimitExceeded"}], "succeeded": int(not self.jobs_fail)}
        self.calls.append(("change" if old else "make", *key[::2]))
        new["metadata"].update(namespace=key[1], resourceVersion=str(self.version), uid=f"uid-{key[2]}")
        self.objects[key] = new
        return (200 if old else 201), new


def _status(code, reason, message):
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}


def _place(version):
    return f"apis/{version}" if "/" in version else f"api/{version}"


def _openapi(version):
    """Says of each kind that the server itself finds unknown fields, so that Helm leaves that to it."""
    group, _, name = version.rpartition("/")
    return {"openapi": "3.0.0", "info": {"title": "in memory", "version": "1"}, "components": {"schemas": {}}, "paths": {
        f"/{_place(version)}/namespaces/{{namespace}}/{plural}/{{name}}": {"patch": {
            "x-kubernetes-group-version-kind": {"group": group, "version": name, "kind": kind},
            "parameters": [{"name": "fieldValidation", "in": "query"}], "responses": {},
        }} for kind, plural in KINDS[version].items()}}


def _merged(old, patch):
    """RFC 7386, which is what a strategic merge is for all that is tested here."""
    if not isinstance(patch, dict) or not isinstance(old, dict):
        return patch
    new = dict(old)
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif not key.startswith("$"):
            new[key] = _merged(new.get(key), value)
    return new


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Helm ends without a word to those it talked to."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, body):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer_nothing(self, form="application/json"):
        """Also a watch in which nothing happens any more."""
        self.send_response(200)
        self.send_header("Content-Type", form)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def body(self):
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return yaml.safe_load(data) if data else {}

    def discovery(self, path):
        groups = sorted({version.rsplit("/", 1)[0] for version in KINDS if "/" in version})
        if path == "/version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            versions = {group: [v for v in KINDS if v.startswith(group + "/")] for group in groups}
            form = lambda v: {"groupVersion": v, "version": v.rsplit("/", 1)[1]}
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": group, "versions": [form(v) for v in found], "preferredVersion": form(found[0])}
                for group, found in versions.items()]}
        if path == "/openapi/v3":
            return {"paths": {_place(version): {"serverRelativeURL": f"/openapi/v3/{_place(version)}"} for version in KINDS}}
        version = path.removeprefix("/openapi/v3").removeprefix("/").removeprefix("apis/").removeprefix("api/")
        if path == f"/openapi/v3/{_place(version)}":
            return _openapi(version)
        if version in KINDS and path in (f"/apis/{version}", f"/api/{version}"):
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [
                {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": VERBS}
                for kind, plural in KINDS[version].items()]}
        return None

    def handle_call(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/openapi/v2":
            # In protobuf, where nothing at all is a document without definitions: Helm 3 then checks no form.
            return self.answer_nothing("application/octet-stream")
        found = self.discovery(url.path)
        if found:
            return self.answer(200, found)
        parts = url.path.strip("/").split("/")
        if "namespaces" not in parts:
            return self.answer(404, _status(404, "NotFound", url.path))
        at = parts.index("namespaces")
        if len(parts) == at + 2:
            return self.answer(200, {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": parts[-1]}})
        version = "/".join(parts[1:at])
        namespace, resource, name = parts[at + 1], parts[at + 2], (parts[at + 3] if len(parts) > at + 3 else None)
        kind = {plural: kind for kind, plural in KINDS.get(version, {}).items()}.get(resource)
        cluster = self.cluster
        if self.command == "GET" and name is None:
            if query.get("watch"):
                return self.answer_nothing()
            field = dict(pair.split("=") for pair in filter(None, query.get("fieldSelector", "").split(",")))
            wanted = [pair.split("=") for pair in filter(None, query.get("labelSelector", "").split(","))]
            items = [o for key, o in cluster.objects.items() if key[:2] == (resource, namespace)
                     and field.get("metadata.name", key[2]) == key[2]
                     and all(o["metadata"].get("labels", {}).get(k) == v for k, v in wanted)]
            return self.answer(200, {"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items})
        if self.command == "POST":
            new = self.body()
            key = (resource, namespace, new["metadata"]["name"])
            if key in cluster.objects:
                return self.answer(409, _status(409, "AlreadyExists", f'{resource} "{key[2]}" already exists'))
            return self.answer(*cluster.store(key, new))
        key = (resource, namespace, name)
        old = cluster.objects.get(key)
        applies = "apply-patch" in self.headers.get("Content-Type", "")
        if old is None and not applies:
            self.body()
            return self.answer(404, {**_status(404, "NotFound", f'{resource} "{name}" not found'), "details": {"name": name, "kind": resource}})
        if self.command == "GET":
            return self.answer(200, old)
        if self.command == "DELETE":
            self.body()
            cluster.delete(resource, name, namespace)
            return self.answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        new = self.body()
        if self.command == "PATCH":
            new = _merged(copy.deepcopy(old), new) if old else new
        if query.get("dryRun") == "All":
            return self.answer(200, new)
        return self.answer(*cluster.store(key, new))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_call
