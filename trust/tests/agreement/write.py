"""Writes repositories with python-tuf: as many as the argument says, in the form that the corpus has."""

import base64
import datetime
import json
import random
import sys

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

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.timezone.utc)


def signed(payload, *signers, compact):
    envelope = Metadata(payload)
    for signer in signers:
        envelope.sign(signer, append=True)
    return base64.b64encode(envelope.to_bytes(JSONSerializer(compact=compact))).decode()


def key(chance):
    return CryptoSigner.generate_ecdsa() if chance.random() < 0.3 else CryptoSigner.generate_ed25519()


def repository(chance):
    expires = NOW + datetime.timedelta(days=1)
    compact = chance.random() < 0.5
    signers = {role: [key(chance) for _ in range(chance.choice([1, 1, 3]))] for role in ("root", "targets", "snapshot", "timestamp")}
    root = Root(version=1, expires=expires, consistent_snapshot=True)
    for role, keys in signers.items():
        for one in keys:
            root.add_key(one.public_key, role)
        root.roles[role].threshold = (len(keys) + 1) // 2
    root.unrecognized_fields["x-ota-mode"] = "adopted"
    roots = [signed(root, *signers["root"], compact=compact)]
    if chance.random() < 0.5:
        root.version = 2
        roots.append(signed(root, *signers["root"], compact=compact))

    version = chance.randrange(1, 1000)
    custom = {
        "package": "app",
        "version": f"{version}.0.0-rc.1",
        "release_counter": version,
        "floor": 0,
        "hardware": chance.choice([[], ["rpi4"], ["rpi4", "x86_64"]]),
        "installer": "directory",
        "unpacked_size_bytes": chance.randrange(0, 1 << 40),
        "later": {"member": ["unknown", None, 1]},
    }
    path = f"app/{version}.0.0-rc.1"
    file = TargetFile.from_data(path, b"payload", ["sha256", "sha512"])
    file.unrecognized_fields["custom"] = custom
    targets = Targets(version=version, expires=expires, targets={path: file})
    meta = {"targets.json": MetaFile(version)}
    bin_case = None
    if chance.random() < 0.5:
        roles = {}
        for index in range(64):
            name = f"bin-{index:02x}"
            prefixes = [f"{prefix:02x}" for prefix in range(index * 4, index * 4 + 4)]
            ids = sorted(one.public_key.keyid for one in signers["targets"])
            roles[name] = DelegatedRole(name, ids, root.roles["targets"].threshold, True, path_hash_prefixes=prefixes)
            meta[f"{name}.json"] = MetaFile(version)
        keys = {one.public_key.keyid: one.public_key for one in signers["targets"]}
        name = next(name for name, role in roles.items() if role.is_delegated_path(path))
        bin_case = [name, signed(targets, *signers["targets"], compact=compact)]
        targets = Targets(version=version, expires=expires, delegations=Delegations(keys, roles))
    targets_bytes = signed(targets, *signers["targets"], compact=compact)
    if chance.random() < 0.5:
        meta["targets.json"] = MetaFile.from_data(version, base64.b64decode(targets_bytes), ["sha256"])
    snapshot_bytes = signed(Snapshot(version=version, expires=expires, meta=meta), *signers["snapshot"], compact=compact)
    pin = MetaFile(version)
    if chance.random() < 0.5:
        pin = MetaFile.from_data(version, base64.b64decode(snapshot_bytes), ["sha256", "sha512"])
    timestamp = Timestamp(version=version, expires=expires, snapshot_meta=pin)
    return {
        "mutation": "python",
        "now": "2026-11-21T12:00:00Z",
        "roots": roots,
        "timestamp": signed(timestamp, *signers["timestamp"], compact=compact),
        "snapshot": snapshot_bytes,
        "targets": targets_bytes,
        "bin": bin_case,
    }


json.dump([repository(random.Random(seed)) for seed in range(int(sys.argv[1]))], sys.stdout)
