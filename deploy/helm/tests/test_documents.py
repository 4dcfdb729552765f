"""What is written beside the chart is true of it."""

import importlib
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest

import kubernetes_validate

import chart
from cluster import Cluster

HERE = pathlib.Path(__file__).parent
GENERATOR = chart.ROOT / ".tools/chart/npm/node_modules/@bitnami/readme-generator-for-helm"
README = (chart.CHART / "README.md").read_text()
PACKED = {"Chart.yaml", "README.md", "UPGRADING.md", "values.schema.json", "values.yaml", "files/alerts.yaml", "files/dashboard.json",
          "templates/NOTES.txt", "templates/tests/health.yaml"}


def tests():
    """The names of all tests there are, of the chart and of what runs in it."""
    for path in HERE.glob("test_*.py"):
        for name, case in vars(importlib.import_module(path.stem)).items():
            if isinstance(case, type) and issubclass(case, unittest.TestCase) and case.__module__ == path.stem:
                for method in unittest.defaultTestLoader.getTestCaseNames(case):
                    yield method.removeprefix("test_")
    for path in (chart.ROOT / "e2e/tests").rglob("*.rs"):
        yield from re.findall(r"#\[(?:tokio::)?test[^\n]*\]\s+(?:async )?fn (\w+)\(\)", path.read_text())


def packed(archive):
    with tarfile.open(archive) as file:
        return {name.removeprefix("ota/") for name in file.getnames()}


class Documents(unittest.TestCase):
    def test_the_table_of_values_is_the_one_that_values_yaml_makes(self):
        with tempfile.TemporaryDirectory() as folder:
            made = pathlib.Path(folder) / "README.md"
            made.write_text(README)
            done = subprocess.run(["node", GENERATOR / "bin/index.js", "-v", chart.CHART / "values.yaml", "-r", made], capture_output=True, text=True)
            self.assertEqual(0, done.returncode, done.stdout + done.stderr)
            self.assertEqual(made.read_text(), README, "run scripts/chart.sh table")

    def test_each_promise_names_tests_that_are_there(self):
        there, promised = set(tests()), README.split("## What the chart promises")[1].split("\n## ")[0]
        rows = [line for line in promised.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
        self.assertGreaterEqual(len(rows), 20)
        for row in rows:
            named = re.findall(r"`(\w+)`", row.split("|")[-2])
            self.assertTrue(named, f"no test: {row}")
            for name in named:
                self.assertIn(name, there, row)

    def test_the_lines_for_a_first_evening_install_what_they_name(self):
        section = (chart.ROOT / "README.md").read_text().split("\n## Kubernetes\n")[1].split("\n## ")[0]
        lines = section.split("```sh\n")[1].split("\n```")[0].splitlines()
        self.assertEqual(5, len(lines))
        image, install, *rest = lines
        with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "helm").symlink_to(chart.HELM3)
            (pathlib.Path(folder) / "config").write_text(cluster.kubeconfig)
            home = {"KUBECONFIG": f"{folder}/config", "PATH": f"{folder}:{os.environ['PATH']}", "HELM_CACHE_HOME": folder}
            done = subprocess.run(["sh", "-c", install], cwd=chart.ROOT, env={**os.environ, **home}, capture_output=True, text=True)
            self.assertEqual(0, done.returncode, done.stderr)
            container, = cluster.get("deployments", "ota")["spec"]["template"]["spec"]["containers"]
            version = re.search(r'^version = "([^"]+)"', (chart.ROOT / "Cargo.toml").read_text(), re.M)[1]
            self.assertEqual(f"localhost/ota:{version}", container["image"], "what the first line makes")
            self.assertIn("make image", image)
            named = {resource: set(re.findall(pattern, "\n".join(rest))) for resource, pattern in
                     (("deployments", r"deployment/(\S+)"), ("services", r"svc/(\S+)"), ("secrets", r"get secret (\S+)"))}
            for resource, names in named.items():
                self.assertTrue(names)
                for name in names:
                    self.assertIsNotNone(cluster.get(resource, name), name)
            for service, port in re.findall(r"svc/(\S+) \d+:(\d+)", "\n".join(rest)):
                self.assertIn(int(port), [one["port"] for one in cluster.get("services", service)["spec"]["ports"]])
            key = re.search(r"\{\.data\.([\w-]+)\}", "\n".join(rest))[1]
            self.assertIn(key, cluster.get("secrets", "ota-admin-token")["data"])
        admin = re.search(r"svc/ota-admin (\d+):", "\n".join(rest))[1]
        self.assertIn(f"otactl login https://localhost:{admin} --ca-file ca.pem --token-file admin-token", rest)

    def test_every_file_and_value_that_is_named_is_there(self):
        known = set()
        def walk(prefix, value):
            known.add(prefix)
            if isinstance(value, dict):
                for key, inner in value.items():
                    walk(f"{prefix}.{key}".strip("."), inner)
        walk("", chart.yaml.safe_load((chart.CHART / "values.yaml").read_text()))
        for name in ("README.md", "UPGRADING.md"):
            text = (chart.CHART / name).read_text()
            for link in re.findall(r"\]\(([^)#:]+)\)", text):
                self.assertTrue((chart.CHART / link).exists(), f"{name}: {link}")
            for value in re.findall(r"`([a-z][A-Za-z]*(?:\.[a-z][A-Za-z]*)+)`", text):
                if value.split(".")[0] in known and not value.endswith((".yaml", ".md", ".sh")):
                    self.assertIn(value, known, name)

    def test_the_pod_that_rotates_the_key_is_one_that_kubernetes_takes_with_flags_that_the_server_has(self):
        pod = chart.yaml.safe_load((chart.CHART / "UPGRADING.md").read_text().split("<<'END'\n")[1].split("\nEND\n")[0])
        for version in chart.KUBERNETES:
            kubernetes_validate.validate(pod, version, strict=True)
        container, = pod["spec"]["containers"]
        source = (chart.ROOT / "server/src/main.rs").read_text()
        self.assertEqual("rotate-key-encryption-key", container["command"][1])
        self.assertIn("RotateKeyEncryptionKey", source)
        self.assertIn("new_key_file", source)
        self.assertEqual(chart.server(chart.objects(chart.LEAST))["image"], container["image"])
        self.assertEqual({one["name"] for one in pod["spec"]["volumes"]}, {one["name"] for one in container["volumeMounts"]})

    def test_the_package_has_the_chart_and_nothing_else(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "ota"
            shutil.copytree(chart.CHART, copy)
            (copy / ".secret").write_text("x")
            (copy / "values.yaml~").write_text("x")
            done = chart.helm3("package", copy, "-d", folder)
            self.assertEqual(0, done.returncode, done.stderr)
            third = packed(next(pathlib.Path(folder).glob("*.tgz")))
            fourth = packed(chart.helm_python.package(copy, destination=pathlib.Path(folder) / "4"))
        wanted = {path.relative_to(chart.CHART).as_posix() for path in chart.CHART.rglob("*") if path.is_file() and not path.name.startswith(".")}
        self.assertEqual(wanted, third)
        self.assertEqual(wanted, fourth - {".helmignore"})
        self.assertLessEqual(PACKED, wanted)

    def test_the_chart_is_of_the_programs_version(self):
        version = re.search(r'^version = "([^"]+)"', (chart.ROOT / "Cargo.toml").read_text(), re.M)[1]
        about = chart.yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
        self.assertEqual(version, about["appVersion"])
        self.assertIn(f":{version}", about["annotations"]["artifacthub.io/images"])
        self.assertLessEqual({f"artifacthub.io/{name}" for name in ("changes", "images", "links", "license")}, set(about["annotations"]))
        for name in ("changes", "images", "links"):
            self.assertIsInstance(chart.yaml.safe_load(about["annotations"][f"artifacthub.io/{name}"]), list)

    def test_defaults_are_the_servers_own(self):
        source = "".join(path.read_text() for path in (chart.ROOT / "server/src").rglob("*.rs"))
        own = dict(re.findall(r'env = "(OTA_\w+)"[^#]*?default_value = "([^"]+)"', source))
        found = chart.environment(chart.server(chart.objects(chart.LEAST)))
        # The chart's replicas stop slower than a server alone, write JSON, serve everybody, and wait for the Job.
        meant = {"OTA_STOP_DELAY", "OTA_LOG_FORMAT", "OTA_LISTEN", "OTA_SCHEMA"}
        same = set(own) & set(found) - meant
        self.assertGreaterEqual(len(same), 6, same)
        for name in same:
            self.assertEqual(own[name], found[name], name)

    def test_the_cluster_of_the_example_has_the_name_that_the_values_have(self):
        cluster = chart.yaml.safe_load((chart.CHART / "examples/cnpg-cluster.yaml").read_text())
        database = chart.example(chart.CHART / "examples/cnpg.yaml")["database"]
        name = cluster["metadata"]["name"]
        self.assertEqual((f"{name}-app", f"{name}-ca"), (database["existingSecret"], database["sslRootCert"]["existingSecret"]))

    def test_a_hundred_thousand_devices_fit_the_figures_that_are_given_for_them(self):
        given = chart.example(chart.CHART / "examples/100000-devices.yaml")
        text = (chart.CHART / "examples/100000-devices.yaml").read_text()
        replicas, connections = given["replicas"], given["server"]["databaseConnections"]
        self.assertIn(f"{replicas + 1} replicas during an upgrade use {(replicas + 1) * connections}", text)
        self.assertIn(f"{100_000 // 300} a second", text)
        self.assertIn(f"{round(100_000 / 7200)} handshakes a second", text)
        self.assertIn(f"{100_000 // replicas:,} devices that connect again", text)
        # What a replica asks for holds its share of the connections, and its limit holds twice that.
        each = int(re.search(r"(\d+) KiB each \(measured\)", text)[1]) << 10
        asked, limit = (int(given["resources"][kind]["memory"].removesuffix("Gi")) << 30 for kind in ("requests", "limits"))
        self.assertLess(100_000 // replicas * each + (36 << 20), asked)
        self.assertLess(100_000 // replicas * 2 * each + (36 << 20), limit)


if __name__ == "__main__":
    unittest.main()
