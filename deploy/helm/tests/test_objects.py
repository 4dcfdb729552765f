"""What the chart makes is what Kubernetes takes, whichever Helm made it."""

import re
import unittest

import kubernetes_validate

import chart

FRESH = ("ota-key-encryption-key", "ota-admin-token")
# Everything that can be switched on at once, for what no example does.
EVERYTHING = chart.values({
    "image": {"digest": "sha256:" + "0" * 64}, "global": {"imageRegistry": "mirror.example"}, "imagePullSecrets": [{"name": "pull"}],
    "commonLabels": {"team": "edge"}, "podLabels": {"pod": "label"}, "podAnnotations": {"pod": "annotation"},
    "deploymentAnnotations": {"deployment": "annotation"}, "migrations": {"mode": "init"},
    "database": {"existingSecret": "", "host": "fd00::1", "passwordSecret": "pw", "sslmode": "verify-full", "sslRootCert": {"existingSecret": "ca"}},
    "objectStore": {"existingSecret": "store", "region": "r", "endpoint": "http://store:9000", "prefix": "/a/b/"},
    "forwardedCertificates": {"names": ["proxy.example", "spiffe://cluster/proxy"], "existingSecret": "proxies"},
    "trustedProxies": ["10.0.0.0/8"], "oidc": {"issuer": "https://id.example", "clientId": "otactl", "audience": "ota", "roles": ["a=admin", "b=viewer"]},
    "tls": {"mode": "certManager", "names": ["ota.example.com", "192.0.2.1"],
            "certManager": {"issuerRef": {"name": "fleet"}, "duration": "2160h", "renewBefore": "720h"}},
    "service": {"ipFamilyPolicy": "PreferDualStack", "devices": {"type": "LoadBalancer", "headless": True, "nodePort": 30443, "annotations": {"a": "b"},
                "externalTrafficPolicy": "Local", "loadBalancerClass": "a.example/b", "loadBalancerSourceRanges": ["192.0.2.0/24"]},
                "admin": {"type": "NodePort"}, "metrics": {"annotations": {"a": "b"}}},
    "gateway": {"devices": {"enabled": True, "kind": "GRPCRoute", "parentRefs": [{"name": "edge"}], "annotations": {"a": "b"}},
                "admin": {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["ota-admin.example.com"]},
                "backendTLS": {"enabled": True, "caConfigMap": "ca"}},
    "ingress": {"devices": {"enabled": True, "hostname": "ota.example.com", "tlsSecret": "edge"},
                "admin": {"enabled": True, "hostname": "ota-admin.example.com", "tlsSecret": "edge", "annotations": {"a": "b"}}},
    "autoscaling": {"enabled": True, "targetMemoryUtilizationPercentage": 80, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
                    "metrics": [{"type": "Pods", "pods": {"metric": {"name": "ota_device_streams"},
                                                          "target": {"type": "AverageValue", "averageValue": "20000"}}}]},
    "affinity": {"nodeAffinity": {}}, "nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "high",
    "runtimeClassName": "gvisor", "serviceAccount": {"name": "someone", "annotations": {"a": "b"}},
    "networkPolicy": {"enabled": True, "database": {"to": [{"podSelector": {"matchLabels": {"a": "b"}}}]}, "dns": {"to": [{"namespaceSelector": {}}]},
                      "objectStore": {"ports": [9000], "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
                      "devices": {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}, "extraEgress": [{"ports": [{"port": 123, "protocol": "UDP"}]}]},
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "x"}, "relabelings": [{"action": "labeldrop", "regex": "x"}],
                                   "metricRelabelings": [{"action": "labeldrop", "regex": "x"}]},
                "prometheusRule": {"enabled": True, "additionalLabels": {"team": "edge"}, "disabled": ["OtaErrors"],
                                   "additionalRules": [{"alert": "Mine", "expr": "vector(1)"}]},
                "dashboard": {"enabled": True, "namespace": "monitoring", "folder": "Fleet"}},
    "extraEnv": [{"name": "EXTRA", "value": "1"}], "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}], "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "extraContainers": [{"name": "beside", "image": "beside:1"}], "initContainers": [{"name": "before", "image": "before:1"}],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-map"}},
                     "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-text\n"],
})
VOLUME = chart.values({"objectStore": {"bucket": ""}, "persistence": {"enabled": True, "storageClass": "fast", "annotations": {"a": "b"}}, "replicas": 1,
                       "migrations": {"useHelmHooks": False, "annotations": {"a": "b"}}, "probes": {"type": "exec"}})
CASES = {path.stem: chart.example(path) for path in chart.EXAMPLES} | {"the least": chart.LEAST, "everything": EVERYTHING, "a volume": VOLUME}

# What custom resources have to have: their schemas are in none of Kubernetes' own.
CUSTOM = {
    "TLSRoute": ("gateway.networking.k8s.io/v1alpha2", ["parentRefs", "hostnames", "rules"]),
    "GRPCRoute": ("gateway.networking.k8s.io/v1", ["parentRefs", "rules"]),
    "BackendTLSPolicy": ("gateway.networking.k8s.io/v1alpha3", ["targetRefs", "validation"]),
    "Certificate": ("cert-manager.io/v1", ["secretName", "issuerRef", "dnsNames"]),
    "ServiceMonitor": ("monitoring.coreos.com/v1", ["selector", "endpoints"]),
    "PrometheusRule": ("monitoring.coreos.com/v1", ["groups"]),
}


def masked(rendered):
    """Without what is made at random."""
    for (kind, name), found in rendered.items():
        if kind == "Secret" and name in FRESH:
            found["data"] = dict.fromkeys(found["data"])
    return rendered


def pods(rendered):
    for (kind, name), found in rendered.items():
        if kind == "Pod":
            yield f"{kind} {name}", found["spec"]
        elif kind in ("Deployment", "Job"):
            yield f"{kind} {name}", found["spec"]["template"]["spec"]


def in_every_case(test):
    """Runs a test with the values of each case."""
    def run(self):
        for name, given in CASES.items():
            with self.subTest(name):
                test(self, given)
    run.__name__ = test.__name__
    return run


class Objects(unittest.TestCase):
    maxDiff = None

    @in_every_case
    def test_both_helms_make_the_same(self, given):
        self.assertEqual(masked(chart.objects3(given)), masked(chart.objects(given)))

    @in_every_case
    def test_both_helms_find_nothing_to_say_when_they_lint(self, given):
        done = chart.helm3("lint", "--strict", chart.CHART, given=given)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        # Helm 4 looks at templates as for a cluster of its own version.
        report = chart.helm_python.lint(chart.CHART, given, strict=True, kube_version="v1.34.0")
        self.assertEqual([], [one for one in report["messages"] if one["severity"] > 1] + (report["errors"] or []))

    @in_every_case
    def test_three_versions_of_kubernetes_take_all_of_it(self, given):
        rendered = chart.objects(given)
        for version in chart.KUBERNETES:
            for (kind, _), found in rendered.items():
                if kind not in CUSTOM:
                    kubernetes_validate.validate(found, version, strict=True)

    def test_an_older_kubernetes_is_refused(self):
        done = chart.helm3("template", "ota", chart.CHART, "--kube-version", "1.26", given=chart.LEAST)
        self.assertIn("incompatible with Kubernetes", done.stderr)

    def test_custom_resources_have_what_their_operators_read(self):
        seen = set()
        for given in CASES.values():
            for (kind, _), found in chart.objects(given).items():
                if kind in CUSTOM:
                    seen.add(kind)
                    version, fields = CUSTOM[kind]
                    self.assertEqual(version, found["apiVersion"])
                    for field in fields:
                        self.assertTrue(found["spec"].get(field), f"{kind} has no {field}")
        self.assertEqual(set(CUSTOM), seen)

    @in_every_case
    def test_no_environment_variable_volume_mount_or_port_is_there_twice(self, given):
        for name, pod in pods(chart.objects(given)):
            every = pod.get("initContainers", []) + pod["containers"]
            lists = [[one["name"] for one in pod.get("volumes", [])], [one["name"] for one in every]]
            for container in every:
                lists.append([one["name"] for one in container.get("env", [])])
                lists.append([one["mountPath"] for one in container.get("volumeMounts", [])])
                lists.append([one["name"] for one in container.get("ports", [])])
            for found in lists:
                self.assertEqual(len(found), len(set(found)), f"{name}: {found}")

    @in_every_case
    def test_every_mount_has_its_volume_and_every_volume_its_mount(self, given):
        for name, pod in pods(chart.objects(given)):
            mounts = {mount["name"] for one in pod.get("initContainers", []) + pod["containers"] for mount in one.get("volumeMounts", [])}
            self.assertEqual({one["name"] for one in pod.get("volumes", [])}, mounts, name)

    @in_every_case
    def test_services_choose_the_servers_pods_and_no_other(self, given):
        rendered = chart.objects(given)
        selectors = [found["spec"]["selector"] for (kind, name), found in rendered.items() if kind == "Service" and "postgres" not in name]
        for selector in selectors:
            chosen = []
            for (kind, name), found in rendered.items():
                labels = found["metadata"] if kind == "Pod" else found.get("spec", {}).get("template", {}).get("metadata", {})
                if selector.items() <= labels.get("labels", {}).items():
                    chosen.append((kind, name))
            self.assertEqual([("Deployment", "ota")], chosen)

    def test_names_stay_within_63_characters(self):
        for (kind, name) in chart.objects(EVERYTHING, name="r" * 53):
            self.assertLessEqual(len(name), 63, kind)

    def test_two_releases_share_no_object_of_a_namespace(self):
        self.assertEqual(set(), set(chart.objects(EVERYTHING, name="one")) & set(chart.objects(EVERYTHING, name="two"))
                         - {("ServiceAccount", "someone")})

    def test_every_object_is_labelled_and_in_the_releases_namespace(self):
        for (kind, name), found in chart.objects(EVERYTHING, namespace="fleet").items():
            if name not in ("ota-map", "ota-text"):
                self.assertEqual("Helm", found["metadata"]["labels"]["app.kubernetes.io/managed-by"], name)
                self.assertEqual("edge", found["metadata"]["labels"]["team"], name)
                self.assertEqual("monitoring" if name == "ota-dashboard" else "fleet", found["metadata"]["namespace"], name)

    def test_a_changed_setting_changes_the_pods(self):
        pod = lambda given: chart.objects(given)["Deployment", "ota"]["spec"]["template"]
        self.assertNotEqual(pod(chart.LEAST), pod(chart.values({"server": {"checkInInterval": "1m"}})))
        self.assertEqual(pod(chart.LEAST), pod(chart.LEAST))

    def test_large_numbers_are_written_out(self):
        rendered = chart.values({"server": {"maxPayloadBytes": 1 << 44}})
        for made in (chart.objects(rendered), chart.objects3(rendered)):
            self.assertEqual("17592186044416", chart.environment(chart.server(made))["OTA_MAX_PAYLOAD_BYTES"])

    def test_the_chart_asks_for_a_database_and_a_place_for_payloads_alone(self):
        for refusal in chart.refusals({}):
            self.assertIn("database: there is none", refusal)
            self.assertIn("payloads: they have no place", refusal)
            self.assertEqual(2, refusal.count("\n  - "))

    def test_every_variable_that_the_chart_sets_is_one_that_the_server_reads(self):
        known = set()
        for path in (chart.ROOT / "server/src").rglob("*.rs"):
            known |= set(re.findall(r'env = "([A-Z0-9_]+)"', path.read_text()))
        others = {"PGSSLMODE", "PGSSLROOTCERT", "AWS_ENDPOINT", "AWS_REGION", "EXTRA"}
        for given in CASES.values():
            self.assertEqual(set(), set(chart.environment(chart.server(chart.objects(given)))) - known - others)


if __name__ == "__main__":
    unittest.main()
