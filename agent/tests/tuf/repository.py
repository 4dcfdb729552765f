"""A repository of The Update Framework, written with python-tuf and served over HTTP, that a test changes as it likes.

Prints a line of JSON with its URL and its first root, then runs each line of its input as Python and answers each with a
line of JSON: what the last expression of the line is.
"""

import ast
import datetime
import hashlib
import http.server
import json
import sys
import threading
import urllib.parse

from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

NOW = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
DAY = datetime.timedelta(days=1)

# What is meant to be published next, and who signs it.
roles = {}
signers = {}
# What is published: the bytes of every version of every role, and of every artifact by its path.
published = {}
artifacts = {}
# What was asked for, in order.
requests = []
# Whether snapshot and timestamp list hashes and lengths.
with_hashes = False
# Answers that take the place of the repository's, by path: a status, or bytes.
instead = {}

root = roles["root"] = Root(expires=NOW + 30 * DAY)
timestamp = roles["timestamp"] = Timestamp(expires=NOW + 30 * DAY)
snapshot = roles["snapshot"] = Snapshot(expires=NOW + 30 * DAY)
targets = roles["targets"] = Targets(expires=NOW + 30 * DAY)


def key(scheme="ed25519"):
    """Makes a key."""
    make = {"ed25519": CryptoSigner.generate_ed25519, "ecdsa": CryptoSigner.generate_ecdsa, "rsa": CryptoSigner.generate_rsa}
    return make[scheme]()


def add_key(role, signer=None, delegator="root"):
    """Lets one more key sign a role."""
    signer = signer or key()
    roles[delegator].add_key(signer.public_key, role)
    signers.setdefault(role, []).append(signer)
    return signer


def rotate(role):
    """Gives a role another key, in place of all it had."""
    for signer in signers.pop(role):
        root.revoke_key(signer.public_key.keyid, role)
    add_key(role)


def signed(role):
    """The bytes of a role as it is, signed."""
    envelope = Metadata(roles[role])
    for signer in signers[role]:
        envelope.sign(signer, append=True)
    return envelope.to_bytes(JSONSerializer())


def publish(*names):
    """Publishes roles, each in its next version, and lists them where they belong."""
    for name in names:
        if name in published:
            roles[name].version += 1
        data = signed(name)
        published.setdefault(name, {})[roles[name].version] = data
        file = MetaFile.from_data(roles[name].version, data, ["sha256"]) if with_hashes else MetaFile(roles[name].version)
        if name == "snapshot":
            timestamp.snapshot_meta = file
        elif name not in ("root", "timestamp"):
            snapshot.meta[f"{name}.json"] = file


def publish_all():
    """Publishes the four roles."""
    publish("root", "targets", "snapshot", "timestamp")


def take_back(role, version):
    """Forgets that a role was ever published, and publishes it from this version on."""
    del published[role]
    roles[role].version = version


def newest(role):
    """The newest bytes of a role."""
    return published[role][max(published[role])]


def change(role, edit):
    """Lets `edit` change the newest document of a role after it was signed."""
    document = json.loads(newest(role))
    edit(document)
    published[role][max(published[role])] = json.dumps(document).encode()


def change_and_sign(role, edit):
    """Lets `edit` change what is signed in the newest document of a role, as no honest library would write it."""
    document = json.loads(newest(role))
    edit(document["signed"])
    message = encode_canonical(document["signed"]).encode()
    document["signatures"] = [signer.sign(message).to_dict() for signer in signers[role]]
    published[role][max(published[role])] = json.dumps(document).encode()


def delegate(delegator, name, paths=None, terminating=False, prefixes=None, expires=None):
    """Delegates paths, to a role with a key of its own."""
    roles.setdefault(name, Targets(expires=expires or NOW + 30 * DAY))
    by = roles[delegator]
    by.delegations = by.delegations or Delegations({}, roles={})
    by.delegations.roles[name] = DelegatedRole(name, [], 1, terminating, paths, prefixes)
    add_key(name, delegator=delegator)


def add(path, data, role="targets", hashes=("sha256",)):
    """Lists an artifact."""
    roles[role].targets[path] = TargetFile.from_data(path, data, list(hashes))
    artifacts[path] = data


def sha256(text):
    """The hash by which a path falls into a bin."""
    return hashlib.sha256(text.encode()).hexdigest()


def find(path):
    """The bytes at a path of the URL, or a status."""
    if path in instead:
        return instead[path]
    folder, _, name = path.partition("/")
    if folder == "targets":
        folder, slash, name = name.rpartition("/")
        if root.consistent_snapshot:
            name = name.partition(".")[2]
        return artifacts.get(urllib.parse.unquote(folder + slash + name), 404)
    role = name.removesuffix(".json")
    version = None
    if role.endswith(".root") or (root.consistent_snapshot and role != "timestamp"):
        version, _, role = role.partition(".")
    versions = published.get(urllib.parse.unquote(role), {})
    return versions.get(int(version) if version else max(versions, default=0), 404)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves what is published."""

    def do_GET(self):
        requests.append(self.path[1:])
        answer = find(self.path[1:])
        if isinstance(answer, int):
            self.send_error(answer)
            return
        self.send_response(200)
        if answer is not ENDLESS:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        try:
            self.wfile.write(answer)
            while answer is ENDLESS:
                self.wfile.write(answer)
        except OSError:
            pass

    def log_message(self, *_):
        pass


# An answer that does not end.
ENDLESS = b"x" * 65536

for role in ("root", "timestamp", "snapshot", "targets"):
    add_key(role)
publish("targets", "snapshot", "timestamp", "root")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({"url": f"http://127.0.0.1:{server.server_address[1]}", "root": newest("root").decode()}), flush=True)

for line in sys.stdin:
    body = ast.parse(line).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "test", "exec"))
    answer = eval(compile(ast.Expression(last.value), "test", "eval")) if last else None
    print(json.dumps(answer, default=str), flush=True)
