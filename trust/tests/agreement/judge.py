"""Judges the repositories of a file as python-tuf does. Writes a list: null for each that it accepts, else why not."""

import base64
import datetime
import json
import sys

from tuf.api.exceptions import RepositoryError
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType


def judge(case):
    def data(field):
        return base64.b64decode(field)

    trusted = TrustedMetadataSet(data(case["roots"][0]), EnvelopeType.METADATA)
    trusted.reference_time = datetime.datetime.fromisoformat(case["now"])
    for root in case["roots"][1:]:
        trusted.update_root(data(root))
    trusted.update_timestamp(data(case["timestamp"]))
    trusted.update_snapshot(data(case["snapshot"]))
    trusted.update_targets(data(case["targets"]))
    if case["bin"]:
        role, document = case["bin"]
        trusted.update_delegated_targets(data(document), role, "targets")


verdicts = []
with open(sys.argv[1], "rb") as file:
    for case in json.load(file):
        try:
            judge(case)
            verdicts.append(None)
        except RepositoryError as error:
            verdicts.append(f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - what no client expects is a refusal too, but says so
            verdicts.append(f"UNEXPECTED {type(error).__name__}: {error}")
json.dump(verdicts, sys.stdout)
