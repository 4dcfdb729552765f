"""What the chart prints after an install works as it is printed, for the preset that was chosen."""

import re
import unittest

import chart
from cluster import Cluster
from release import Helm3

ROUTE = {"enabled": True, "parentRefs": [{"name": "edge"}]}
# Values, then lines that have to be there and parts that may not.
CASES = {
    "builtin": ({}, [
        "kubectl -n ota rollout status deployment/ota",
        "helm test ota --namespace ota",
        "kubectl -n ota port-forward svc/ota-admin 8444:8444 &",
        "kubectl -n ota port-forward svc/ota 8443:8443 &",
        "kubectl -n ota exec deployment/ota -c ota-server -- /ota-server authority > ca.pem",
        "kubectl -n ota get secret ota-admin-token -o jsonpath='{.data.admin-token}' | base64 -d > admin-token",
        "otactl login https://localhost:8444 --ca-file ca.pem --token-file admin-token",
        "otactl enroll-token create",
        "ota-agent enroll STRING --server https://localhost:8443 --hardware my-board",
        "ota-agent run",
        "otactl upload ./my-app --package my-app --version 1.0.0      # a folder or a file",
        "otactl assign my-app@1.0.0 --all",
        "Devices outside the cluster cannot reach the server yet: choose service.devices.type, gateway.devices or ingress.devices, and give",
    ], ["--oidc", "http://"]),
    "passthrough": ({"gateway": {"devices": {**ROUTE, "hostnames": ["ota.example"]}, "admin": {**ROUTE, "hostnames": ["admin.example"]}}}, [
        "kubectl -n ota exec deployment/ota -c ota-server -- /ota-server authority > ca.pem",
        "otactl login https://admin.example --ca-file ca.pem --token-file admin-token",
        "ota-agent enroll STRING --server https://ota.example --hardware my-board",
    ], ["port-forward", "cannot reach"]),
    "proxy": ({"tls": {"mode": "proxy"}, "gateway": {"devices": {**ROUTE, "hostnames": ["ota.example"]}}}, [
        "kubectl -n ota port-forward svc/ota-admin 8444:8444 &",
        "otactl login http://localhost:8444 --token-file admin-token",
        "ota-agent enroll STRING --server https://ota.example --ca-file ca.pem --hardware my-board",
    ], ["authority > ca.pem", "https://localhost"]),
    "ingress": ({"tls": {"mode": "proxy"}, "ingress": {"admin": {"enabled": True, "hostname": "admin.example", "tlsSecret": "x"}}}, [
        "cp /etc/ssl/certs/ca-certificates.crt ca.pem   # for a public authority, else the one that signed the proxy's certificate",
        "otactl login https://admin.example --ca-file ca.pem --token-file admin-token",
        "ota-agent enroll STRING --server http://localhost:8443 --hardware my-board",
    ], ["authority > ca.pem"]),
    "certManager": ({"tls": {"mode": "certManager", "names": ["ota.example"], "certManager": {"issuerRef": {"name": "x"}}},
                     "service": {"devices": {"type": "LoadBalancer", "port": 443}}}, [
        "kubectl -n ota get secret ota-tls -o jsonpath='{.data.ca\\.crt}' | base64 -d > ca.pem   # empty for a public authority: cp /etc/ssl/certs/ca-certificates.crt ca.pem",
        "ota-agent enroll STRING --server https://ota.example:443 --ca-file ca.pem --hardware my-board",
    ], ["authority > ca.pem", "cannot reach"]),
    "secret": ({"tls": {"mode": "secret", "existingSecret": "mine"}}, [
        "cp /etc/ssl/certs/ca-certificates.crt ca.pem   # for a public authority, else the one that signed your certificate",
        "otactl login https://localhost:8444 --ca-file ca.pem --token-file admin-token",
    ], ["authority > ca.pem"]),
    "a node's port": ({"tls": {"names": ["node.example"]}, "service": {"devices": {"type": "NodePort", "nodePort": 30443}}}, [
        "ota-agent enroll STRING --server https://node.example:30443 --hardware my-board",
    ], ["cannot reach"]),
    "no first token": ({"adminToken": {"create": False}, "tests": {"enabled": False}, "keyEncryptionKey": {"existingSecret": "k"},
                        "oidc": {"issuer": "https://id.example", "clientId": "x", "roles": ["a=admin"]}}, [
        "kubectl -n ota exec deployment/ota -c ota-server -- /ota-server admin-token > admin-token",
        "otactl login https://localhost:8444 --ca-file ca.pem --oidc   # as yourself",
    ], ["get secret ota-admin-token", "helm test", "Keep a copy"]),
    "a key with a dot": ({"adminToken": {"existingSecret": "mine", "secretKey": "a.b"}}, [
        "kubectl -n ota get secret mine -o jsonpath='{.data.a\\.b}' | base64 -d > admin-token",
    ], []),
}


class Notes(unittest.TestCase):
    def test_they_have_the_lines_of_the_preset_and_no_others(self):
        for name, (given, lines, not_there) in CASES.items():
            with self.subTest(name):
                text = chart.notes(chart.values(given))
                found = [line.strip() for line in text.splitlines()]
                for line in lines:
                    self.assertIn(line, found)
                for part in not_there:
                    self.assertNotIn(part, text)

    def test_both_helms_print_the_same(self):
        # Helm 3 prints notes of an install alone, and that asks a cluster.
        given = chart.LEAST
        with Cluster() as cluster:
            helm = Helm3(cluster)
            done = chart.helm3("install", "ota", chart.CHART, "-n", "ota", "--kubeconfig", helm.file.name, given=given)
        self.assertEqual(chart.notes(given).strip(), done.stdout.partition("NOTES:\n")[2].strip())

    def test_every_object_that_they_name_is_there(self):
        for name, (given, _, _) in CASES.items():
            rendered = set(chart.objects(chart.values(given)))
            for kind, pattern in (("Service", r"svc/(\S+)"), ("Deployment", r"deployment/(\S+)"), ("Secret", r"get secret (ota-admin\S*)")):
                for found in re.findall(pattern, chart.notes(chart.values(given))):
                    self.assertIn((kind, found), rendered, name)

    def test_no_example_leaves_a_gap_in_them(self):
        for path in chart.EXAMPLES:
            for bad in ("<no value>", "%!", "map[", "  --", "https:// "):
                self.assertNotIn(bad, chart.notes(chart.example(path)), path.name)


if __name__ == "__main__":
    unittest.main()
