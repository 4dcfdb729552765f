"""The pods ask for no more rights than they need, by checkov's rules and by ours."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import chart
from test_objects import CASES, pods

# Containers of somebody else's are not the chart's to judge.
OURS = {name: {key: value for key, value in given.items() if key not in ("extraContainers", "initContainers")} for name, given in CASES.items()}
REASONS = chart.yaml.safe_load((pathlib.Path(__file__).parent / "checkov.yaml").read_text())


def findings():
    """What checkov finds in all cases, as pairs of check and resource."""
    with tempfile.TemporaryDirectory() as folder:
        for number, given in enumerate(OURS.values()):
            documents = [one for (kind, name), one in chart.objects(given).items() if "/" in one["apiVersion"] or kind in ("Pod", "Service", "ServiceAccount")]
            (pathlib.Path(folder) / f"{number}.yaml").write_text(chart.yaml.safe_dump_all(documents))
        checkov = pathlib.Path(sys.executable).parent / "checkov"
        done = subprocess.run([sys.executable, checkov, "-d", folder, "--framework", "kubernetes", "--quiet", "--compact", "--skip-download", "-o", "json"],
                              capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0 and report["summary"]["passed"] > 1000, report["summary"]
    return {(one["check_id"], one["resource"]) for one in report["results"]["failed_checks"]}


class Policy(unittest.TestCase):
    def test_checkov_finds_nothing_without_a_reason_and_no_reason_is_left_over(self):
        matches = lambda reason, found: reason["check"] == found[0] and re.fullmatch(reason["resource"], found[1])
        every = findings()
        self.assertEqual(set(), {one for one in every if not any(matches(reason, one) for reason in REASONS)})
        self.assertEqual([], [reason for reason in REASONS if not any(matches(reason, one) for one in every)])

    def test_no_pod_of_the_chart_has_more_rights_than_this(self):
        for name, given in OURS.items():
            rendered = {key: one for key, one in chart.objects(given).items() if key[1] != "ota-postgres"}
            for where, pod in pods(rendered):
                with self.subTest(f"{name}: {where}"):
                    self.assertIs(False, pod["automountServiceAccountToken"])
                    self.assertIs(True, pod["securityContext"]["runAsNonRoot"])
                    self.assertEqual(65532, pod["securityContext"]["runAsUser"])
                    self.assertEqual("RuntimeDefault", pod["securityContext"]["seccompProfile"]["type"])
                    for one in pod.get("initContainers", []) + pod["containers"]:
                        context = one["securityContext"]
                        self.assertEqual((True, False, ["ALL"]), (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"], context["capabilities"]["drop"]))
                        self.assertIn("memory", one["resources"]["limits"])
                        self.assertLessEqual({"cpu", "memory"}, set(one["resources"]["requests"]))

    def test_what_pods_may_write_is_bounded(self):
        for name, given in OURS.items():
            for where, pod in pods(chart.objects(given)):
                for volume in pod["volumes"]:
                    if "emptyDir" in volume and volume["name"] != "more":
                        self.assertIn("sizeLimit", volume["emptyDir"], f"{name}: {where}")

    def test_nothing_of_the_cluster_is_the_charts_to_change(self):
        for name, given in OURS.items():
            for kind, _ in chart.objects(given):
                self.assertFalse(kind.startswith(("Role", "ClusterRole")), name)


if __name__ == "__main__":
    unittest.main()
