"""Values that cannot work are refused in words that say what to do, by both Helms."""

import unittest

import chart

PROXY = {"tls": {"mode": "proxy"}}
VOLUME = {"objectStore": {"bucket": ""}, "persistence": {"enabled": True}}
# What is wrong, and what each Helm says: the same where the chart says it, else what the schema's checker makes of it.
FORM = [
    ({"replica": 1}, "replica", "is not allowed", "not allowed"),
    ({"database": {"existingSecrt": "x"}}, "existingSecrt", "is not allowed", "not allowed"),
    ({"server": {"checkinInterval": "5m"}}, "checkinInterval", "is not allowed", "not allowed"),
    ({"metrics": {"serviceMonitor": {"namespace": "x"}}}, "namespace", "is not allowed", "not allowed"),
    ({"gateway": {"devices": {"hosts": ["x"]}}}, "hosts", "is not allowed", "not allowed"),
    ({"postgresql": {"enabled": True}}, "postgresql", "is not allowed", "not allowed"),
    ({"server": {"checkInInterval": 300}}, "checkInInterval", "Invalid type. Expected: string", "got number, want string"),
    ({"server": {"checkInInterval": "5 minutes"}}, "checkInInterval", "Does not match pattern", "does not match pattern"),
    ({"server": {"enrollRate": "5"}}, "enrollRate", "Does not match pattern", "does not match pattern"),
    ({"server": {"databaseConnections": 1}}, "databaseConnections", "greater than or equal to 2", "minimum: got 1, want 2"),
    ({"server": {"logFormat": "xml"}}, "logFormat", "must be one of", "value must be one of"),
    ({"replicas": -1}, "replicas", "greater than or equal to 0", "minimum: got -1, want 0"),
    ({"replicas": "2"}, "replicas", "Expected: integer", "got string, want integer"),
    ({"tls": {"mode": "passthrough"}}, "tls", "must be one of", "value must be one of"),
    ({"migrations": {"mode": "hook"}}, "migrations", "must be one of", "value must be one of"),
    ({"probes": {"type": "tcp"}}, "probes", "must be one of", "value must be one of"),
    ({"service": {"devices": {"type": "ExternalName"}}}, "type", "must be one of", "value must be one of"),
    ({"service": {"devices": {"port": 70000}}}, "port", "less than or equal to 65535", "maximum: got 70,000"),
    ({"image": {"digest": "sha256:abc"}}, "digest", "Does not match pattern", "does not match pattern"),
    ({"database": {"existingSecret": "Not_A_Name"}}, "existingSecret", "Does not match pattern", "does not match pattern"),
    ({"objectStore": {"bucket": "A"}}, "bucket", "Does not match pattern", "does not match pattern"),
    ({"objectStore": {"endpoint": "minio:9000"}}, "endpoint", "Does not match pattern", "does not match pattern"),
    ({"trustedProxies": ["10.0.0.1"]}, "trustedProxies", "Does not match pattern", "does not match pattern"),
    ({"oidc": {"issuer": "http://id.example"}}, "issuer", "Does not match pattern", "does not match pattern"),
    ({"oidc": {"roles": ["admins"]}}, "roles", "Does not match pattern", "does not match pattern"),
    ({"resources": {"limits": {"memory": "lots"}}}, "memory", "Does not match pattern", "does not match pattern"),
    ({"podAnnotations": {"a": True}}, "podAnnotations", "Expected: string", "got boolean, want string"),
    ({"metrics": {"prometheusRule": {"errorRatio": 5}}}, "errorRatio", "less than 1", "exclusiveMaximum"),
    ({"fullnameOverride": "x" * 44}, "fullnameOverride", "less than or equal to 43", "maxLength: got 44"),
]
SENSE = [
    ({"database": {"existingSecret": ""}}, "database: there is none"),
    ({"database": {"host": "db"}}, "existingSecret has the whole URL"),
    ({"database": {"existingSecret": "", "passwordSecret": "pw"}}, "or give database.host"),
    ({"database": {"sslmode": "verify-full"}}, "verify-full needs the authority"),
    ({"objectStore": {"bucket": ""}}, "payloads: they have no place"),
    ({"objectStore": {"bucket": "", "region": "x"}, "persistence": {"enabled": True}, "replicas": 1}, "are of no use without objectStore.bucket"),
    ({"persistence": {"enabled": True}, "replicas": 1}, "payloads: they are in one place"),
    (VOLUME, "there can be one replica"),
    ({**VOLUME, "replicas": 1, "autoscaling": {"enabled": True}}, "there can be one replica"),
    ({**VOLUME, "replicas": 1, "updateStrategy": {"type": "RollingUpdate"}}, "set type to Recreate"),
    ({"tls": {"mode": "secret"}}, "mode secret needs tls.existingSecret"),
    ({"tls": {"existingSecret": "x"}}, "is for mode secret, and the mode is builtin"),
    ({"tls": {"mode": "certManager"}}, "needs tls.certManager.issuerRef.name"),
    ({"tls": {"mode": "certManager", "serviceNames": False, "certManager": {"issuerRef": {"name": "x"}}}}, "a certificate needs names"),
    ({"forwardedCertificates": {"names": ["x"]}}, "name their Secret in forwardedCertificates.existingSecret"),
    ({"forwardedCertificates": {"existingSecret": "x"}}, "without names no proxy is believed"),
    ({**PROXY, "forwardedCertificates": {"names": ["x"], "existingSecret": "x"}}, "a proxy has to call over TLS to be believed"),
    ({"gateway": {"devices": {"enabled": True, "hostnames": ["a.example"]}}}, "gateway.devices: a route belongs to a Gateway"),
    ({"gateway": {"admin": {"enabled": True, "parentRefs": [{"name": "x"}]}}}, "gateway.admin: a TLSRoute is chosen by name"),
    ({**PROXY, "gateway": {"admin": {"enabled": True, "kind": "TLSRoute", "hostnames": ["a"], "parentRefs": [{"name": "x"}]}}}, "the server speaks none"),
    ({**PROXY, "gateway": {"backendTLS": {"enabled": True, "caConfigMap": "x"}}}, "the server speaks no TLS"),
    ({"gateway": {"backendTLS": {"enabled": True}}}, "name the ConfigMap"),
    ({"ingress": {"devices": {"enabled": True}}}, "ingress.devices: give its hostname"),
    ({**PROXY, "ingress": {"admin": {"enabled": True, "hostname": "a.example"}}}, "ingress.admin: the controller ends TLS here"),
    ({"oidc": {"issuer": "https://id.example"}}, "oidc: issuer, clientId and at least one of roles belong together"),
    ({"oidc": {"clientId": "x"}}, "the issuer is missing"),
    ({"autoscaling": {"enabled": True, "minReplicas": 9}}, "minReplicas (9) is more than maxReplicas (6)"),
    ({"autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": None}}, "it needs something to go by"),
    ({"podDisruptionBudget": {"maxUnavailable": None}}, "give maxUnavailable or minAvailable"),
    ({"podDisruptionBudget": {"minAvailable": 1}}, "it takes one of maxUnavailable and minAvailable"),
    ({"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable 0 blocks every drain"),
    ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "maxUnavailable 0 blocks every drain"),
    ({"podDisruptionBudget": {"maxUnavailable": None, "minAvailable": 2}}, "minAvailable 2 of 2 replicas blocks every drain"),
    ({"podDisruptionBudget": {"maxUnavailable": None, "minAvailable": "51%"}}, "minAvailable 51% of 2 replicas blocks every drain"),
    ({"terminationGracePeriodSeconds": 34}, "34 s are too short; stopDelay, drainTimeout and 10 s to spare are 35 s"),
    ({"server": {"drainTimeout": "5m"}, "terminationGracePeriodSeconds": 300}, "are 315 s"),
    ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "commonLabels: app.kubernetes.io/name is there already"),
    ({"podLabels": {"team": "edge"}, "commonLabels": {"team": "edge"}}, "podLabels: team is there already"),
    ({"metrics": {"serviceMonitor": {"labels": {"helm.sh/chart": "x"}}}}, "metrics.serviceMonitor.labels: helm.sh/chart is there already"),
    ({"extraVolumes": [{"name": "data", "emptyDir": {}}]}, "extraVolumes: data is there already; choose another name"),
    ({"extraVolumeMounts": [{"name": "x", "mountPath": "/tmp"}]}, "extraVolumeMounts: /tmp is there already; choose another mountPath"),
    ({"extraContainers": [{"name": "ota-server", "image": "x"}]}, "extraContainers: ota-server is there already"),
    ({"extraEnv": [{"name": "OTA_LISTEN", "value": "x"}]}, "the chart sets OTA_LISTEN by itself"),
    ({"extraEnv": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]}, "extraEnv: A is there twice"),
    ({"extraEnv": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]}, "AWS_SECRET_ACCESS_KEY is a secret"),
]
FINE = [
    {"podDisruptionBudget": {"maxUnavailable": None, "minAvailable": "50%"}},
    {"podDisruptionBudget": {"maxUnavailable": None, "minAvailable": 1}},
    {"terminationGracePeriodSeconds": 35},
    {"server": {"drainTimeout": "1500ms", "stopDelay": "0s"}, "terminationGracePeriodSeconds": 12},
    {**VOLUME, "persistence": {"enabled": True, "accessModes": ["ReadWriteMany"]}},
    {**VOLUME, "replicas": 1, "updateStrategy": {"type": "Recreate"}},
    {"global": {"imageRegistry": "x", "somebody": "else's"}},
    {"replicas": 1},
    {"replicas": 0},
    {"podAnnotations": {"kubectl.kubernetes.io/default-container": "x"}, "migrations": {"annotations": {"helm.sh/hook-weight": "5"}}},
    {"podLabels": {"team": "edge"}, "commonLabels": {"other": "edge"}},
]


class Refusals(unittest.TestCase):
    def test_values_of_a_wrong_form_are_refused_by_name(self):
        for given, name, third, fourth in FORM:
            with self.subTest(given):
                for said, part in zip(chart.refusals(chart.values(given)), (third, fourth)):
                    self.assertIsNotNone(said, "was taken")
                    self.assertIn(name, said)
                    self.assertIn(part, said)

    def test_values_that_make_no_sense_together_are_refused_in_one_sentence(self):
        for given, part in SENSE:
            with self.subTest(given):
                for said in chart.refusals(chart.values(given)):
                    self.assertIsNotNone(said, "was taken")
                    self.assertIn(part, said)
                    self.assertEqual(1, said.count("\n  - "), said)

    def test_all_that_is_wrong_is_said_at_once(self):
        wrong = chart.values({"tls": {"mode": "secret"}, "podDisruptionBudget": {"maxUnavailable": 0}, "oidc": {"clientId": "x"}})
        for said in chart.refusals(wrong):
            self.assertEqual(3, said.count("\n  - "), said)

    def test_values_at_the_edge_are_taken(self):
        for given in FINE:
            with self.subTest(given):
                self.assertEqual((None, None), chart.refusals(chart.values(given)))

    def test_every_value_is_in_the_schema_and_the_schema_has_no_other(self):
        def compare(value, schema, path):
            while "$ref" in schema:
                schema = SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]]
            if schema.get("additionalProperties") is False:
                self.assertEqual(set(), set(value) ^ set(schema["properties"]) - OPTIONAL.get(path, set()), path)
                for key, inner in value.items():
                    compare(inner, schema["properties"][key], f"{path}.{key}".strip("."))
            elif isinstance(value, dict) and path != "global":
                self.assertNotIn("properties", schema, f"{path} lets unknown keys through")
        # Kubernetes' own objects, of which the chart says a part.
        OPTIONAL = {"resources": {"claims"}, "migrations.resources": {"claims"}, "updateStrategy": {"type", "rollingUpdate"}}
        SCHEMA = chart.yaml.safe_load((chart.CHART / "values.schema.json").read_text())
        compare(chart.yaml.safe_load((chart.CHART / "values.yaml").read_text()), SCHEMA, "")

    def test_the_schema_needs_no_network(self):
        text = (chart.CHART / "values.schema.json").read_text()
        self.assertEqual([], [line for line in text.splitlines() if '"$ref"' in line and '"#/' not in line])


if __name__ == "__main__":
    unittest.main()
