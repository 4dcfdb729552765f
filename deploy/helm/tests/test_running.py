"""How the servers run: schema, probes, TLS, replicas, stopping, what may reach them, where they are."""

import unittest

import chart


def pod(rendered):
    return rendered["Deployment", "ota"]["spec"]["template"]["spec"]


def environment(*changes):
    return chart.environment(chart.server(chart.objects(chart.values(*changes))))


def hooks(found):
    return found["metadata"].get("annotations", {}).get("helm.sh/hook")


class Migrations(unittest.TestCase):
    def test_by_default_a_job_brings_the_schema_up_to_date_before_anything_else(self):
        rendered = chart.objects(chart.LEAST)
        job = rendered["Job", "ota-migrate"]
        self.assertEqual("pre-install,pre-upgrade", hooks(job))
        self.assertEqual("before-hook-creation,hook-succeeded", job["metadata"]["annotations"]["helm.sh/hook-delete-policy"])
        self.assertEqual(["/ota-server", "migrate"], job["spec"]["template"]["spec"]["containers"][0]["command"])
        self.assertEqual("wait", environment()["OTA_SCHEMA"])

    def test_the_hook_needs_nothing_that_the_release_makes(self):
        rendered = chart.objects(chart.LEAST)
        job = rendered["Job", "ota-migrate"]["spec"]["template"]["spec"]
        self.assertEqual("default", job["serviceAccountName"])
        named = {one["secret"]["secretName"] for one in job["volumes"] if "secret" in one}
        self.assertEqual({"db"}, named)
        self.assertEqual(set(), {("Secret", name) for name in named} & set(rendered))

    def test_a_plain_job_has_a_name_for_each_thing_that_it_does(self):
        def name(*changes):
            rendered = chart.objects(chart.values({"migrations": {"useHelmHooks": False}}, *changes))
            found, = ((name, one) for (kind, name), one in rendered.items() if kind == "Job")
            self.assertIsNone(hooks(found[1]))
            self.assertEqual(86400, found[1]["spec"]["ttlSecondsAfterFinished"])
            return found[0]
        self.assertEqual(name(), name({"replicas": 3}))
        self.assertNotEqual(name(), name({"image": {"tag": "9"}}))
        self.assertNotEqual(name(), name({"migrations": {"backoffLimit": 1}}))

    def test_an_init_container_does_it_before_each_server(self):
        rendered = chart.objects(chart.values({"migrations": {"mode": "init"}}))
        self.assertEqual([["/ota-server", "migrate"]], [one["command"] for one in pod(rendered)["initContainers"]])
        self.assertEqual([], [key for key in rendered if key[0] == "Job"])
        self.assertEqual("wait", chart.environment(chart.server(rendered))["OTA_SCHEMA"])

    def test_with_none_each_server_does_it_by_itself(self):
        rendered = chart.objects(chart.values({"migrations": {"mode": "none"}}))
        self.assertEqual([], [key for key in rendered if key[0] == "Job"])
        self.assertNotIn("initContainers", pod(rendered))
        self.assertEqual("migrate", chart.environment(chart.server(rendered))["OTA_SCHEMA"])

    def test_no_image_is_used_but_the_servers(self):
        images = set()
        for given in ({}, {"migrations": {"mode": "init"}}):
            for (kind, _), found in chart.objects(chart.values(given)).items():
                if kind in ("Deployment", "Job", "Pod"):
                    spec = found["spec"] if kind == "Pod" else found["spec"]["template"]["spec"]
                    images |= {one["image"] for one in spec.get("initContainers", []) + spec["containers"]}
        self.assertEqual({"ghcr.io/ota-project/ota:0.1.0"}, images)


class Probes(unittest.TestCase):
    def test_the_kubelet_asks_the_operations_port_whatever_tls_is(self):
        for mode in ({"mode": "builtin"}, {"mode": "secret", "existingSecret": "x"}, {"mode": "proxy"},
                     {"mode": "certManager", "certManager": {"issuerRef": {"name": "x"}}}):
            server = chart.server(chart.objects(chart.values({"tls": mode})))
            for probe, service in (("startupProbe", "liveness"), ("readinessProbe", "readiness"), ("livenessProbe", "liveness")):
                self.assertEqual({"port": 9464, "service": service}, server[probe]["grpc"], mode)

    def test_a_command_may_ask_instead_and_never_for_liveness(self):
        server = chart.server(chart.objects(chart.values({"probes": {"type": "exec"}})))
        for probe in ("startupProbe", "readinessProbe"):
            self.assertEqual(["/ota-server", "healthcheck"], server[probe]["exec"]["command"])
        self.assertNotIn("livenessProbe", server)

    def test_probes_of_ones_own_take_the_place_of_the_charts(self):
        own = {"httpGet": {"path": "/", "port": 1}}
        server = chart.server(chart.objects(chart.values({f"custom{name}Probe": own for name in ("Startup", "Readiness", "Liveness")})))
        self.assertEqual([own] * 3, [server[f"{name}Probe"] for name in ("startup", "readiness", "liveness")])

    def test_helm_test_asks_with_our_own_image_in_every_preset(self):
        for mode, scheme in (("builtin", "https"), ("proxy", "http")):
            rendered = chart.objects(chart.values({"tls": {"mode": mode}, "service": {"admin": {"port": 99}}}))
            found = rendered["Pod", "ota-health"]
            self.assertEqual("test", hooks(found))
            self.assertEqual({"devices": ["/otactl", "health", f"{scheme}://ota:8443"], "admin": ["/otactl", "health", f"{scheme}://ota-admin:99"]},
                             {one["name"]: one["command"] for one in found["spec"]["containers"]})
            self.assertEqual({chart.server(rendered)["image"]}, {one["image"] for one in found["spec"]["containers"]})


class Tls(unittest.TestCase):
    def test_the_servers_own_certificate_has_the_names_of_services_and_routes(self):
        names = environment({"tls": {"names": ["extra.example"]}, "ingress": {"admin": {"enabled": True, "hostname": "in.example"}},
                             "gateway": {"devices": {"enabled": True, "hostnames": ["gw.example"], "parentRefs": [{"name": "x"}]}}})["OTA_TLS_NAME"]
        self.assertEqual(["ota", "ota.ota", "ota.ota.svc", "ota-admin", "ota-admin.ota", "ota-admin.ota.svc", "localhost",
                          "gw.example", "in.example", "extra.example"], names.split(","))

    def test_a_certificate_of_ones_own_takes_the_place_of_names(self):
        found = environment({"tls": {"mode": "secret", "existingSecret": "x"}})
        self.assertNotIn("OTA_TLS_NAME", found)
        self.assertEqual(("/etc/ota/tls/tls.crt", "/etc/ota/tls/tls.key"), (found["OTA_TLS_CERT"], found["OTA_TLS_KEY"]))

    def test_cert_manager_makes_one_with_the_names_that_its_authority_may_sign(self):
        given = {"mode": "certManager", "names": ["ota.example", "192.0.2.1"], "certManager": {"issuerRef": {"name": "x"}}}
        certificate = chart.objects(chart.values({"tls": given}))["Certificate", "ota"]["spec"]
        self.assertIn("ota.ota.svc", certificate["dnsNames"])
        self.assertEqual(["192.0.2.1"], certificate["ipAddresses"])
        public = chart.objects(chart.values({"tls": {**given, "serviceNames": False}}))["Certificate", "ota"]["spec"]
        self.assertEqual(["ota.example"], public["dnsNames"])

    def test_behind_a_proxy_the_server_speaks_plain_http2_and_says_so(self):
        rendered = chart.objects(chart.example(chart.CHART / "examples/l7-proxy.yaml"))
        found = chart.environment(chart.server(rendered))
        self.assertEqual(("true", "true", "10.244.0.0/16"), (found["OTA_NO_TLS"], found["OTA_INSECURE_LISTEN"], found["OTA_TRUSTED_PROXIES"]))
        for name in ("ota", "ota-admin"):
            self.assertEqual("kubernetes.io/h2c", rendered["Service", name]["spec"]["ports"][0]["appProtocol"])
        self.assertIn(("GRPCRoute", "ota-devices"), rendered)

    def test_with_tls_the_services_say_so(self):
        self.assertEqual("https", chart.objects(chart.LEAST)["Service", "ota"]["spec"]["ports"][0]["appProtocol"])

    def test_passthrough_routes_by_name_to_the_port_of_each(self):
        rendered = chart.objects(chart.example(chart.CHART / "examples/tls-passthrough.yaml"))
        for which, service, port in (("devices", "ota", 8443), ("admin", "ota-admin", 8444)):
            self.assertEqual([{"backendRefs": [{"name": service, "port": port}]}], rendered["TLSRoute", f"ota-{which}"]["spec"]["rules"])
        self.assertNotIn("OTA_NO_TLS", chart.environment(chart.server(rendered)))

    def test_a_tls_route_has_the_newest_version_that_the_cluster_has(self):
        given = chart.example(chart.CHART / "examples/tls-passthrough.yaml")
        for there, expected in ((["v1alpha2"], "v1alpha2"), (["v1alpha2", "v1alpha3"], "v1alpha3"), (["v1", "v1alpha3"], "v1")):
            flags = [flag for version in there for flag in ("-a", f"gateway.networking.k8s.io/{version}/TLSRoute")]
            done = chart.helm3("template", "ota", chart.CHART, "--kube-version", "1.34", *flags, given=given)
            self.assertIn(f"apiVersion: gateway.networking.k8s.io/{expected}\nkind: TLSRoute", done.stdout)

    def test_nginx_is_told_to_pass_tls_on_or_to_speak_grpc(self):
        route = {"enabled": True, "hostname": "a.example", "tlsSecret": "edge"}
        def annotations(*changes):
            found = chart.objects(chart.values({"ingress": {"devices": route}}, *changes))["Ingress", "ota-devices"]
            return {key.rsplit("/", 1)[1]: value for key, value in found["metadata"].get("annotations", {}).items()}, found["spec"].get("tls")
        self.assertEqual(({"ssl-passthrough": "true", "backend-protocol": "GRPCS"}, None), annotations())
        ended, tls = annotations({"tls": {"mode": "proxy"}})
        # 1.1 times an hour, and a minute.
        self.assertEqual({"backend-protocol": "GRPC", "proxy-body-size": "0", "proxy-read-timeout": "4020", "proxy-send-timeout": "4020"}, ended)
        self.assertEqual([{"hosts": ["a.example"], "secretName": "edge"}], tls)
        passed, _ = annotations({"forwardedCertificates": {"names": ["x"], "existingSecret": "x"}})
        self.assertEqual(("GRPCS", "optional_no_ca", "true"), (passed["backend-protocol"], passed["auth-tls-verify-client"],
                                                               passed["auth-tls-pass-certificate-to-upstream"]))
        self.assertEqual({}, annotations({"ingress": {"controller": "other"}})[0])
        self.assertEqual("1", annotations({"tls": {"mode": "proxy"}, "ingress": {"devices": {"annotations": {
            "nginx.ingress.kubernetes.io/proxy-read-timeout": "1"}}}})[0]["proxy-read-timeout"])

    def test_devices_people_and_prometheus_have_ports_of_their_own(self):
        rendered = chart.objects(chart.LEAST)
        ports = {one["name"]: one["containerPort"] for one in chart.server(rendered)["ports"]}
        self.assertEqual({"grpc": 8443, "admin": 8444, "metrics": 9464}, ports)
        for name, port in (("ota", "grpc"), ("ota-admin", "admin"), ("ota-metrics", "metrics")):
            self.assertEqual([port], [one["targetPort"] for one in rendered["Service", name]["spec"]["ports"]])
            self.assertEqual("ClusterIP", rendered["Service", name]["spec"]["type"])

    def test_a_headless_service_gives_the_addresses_of_all_pods(self):
        found = chart.objects(chart.values({"service": {"devices": {"headless": True, "type": "LoadBalancer"}}}))["Service", "ota-headless"]["spec"]
        self.assertEqual(("ClusterIP", "None"), (found["type"], found["clusterIP"]))


class Database(unittest.TestCase):
    def test_a_host_and_a_secret_make_an_url_without_the_password(self):
        found = environment({"database": {"existingSecret": "", "host": "db.example", "passwordSecret": "pw", "sslmode": "require"}})
        self.assertEqual(("postgres://ota@db.example:5432/ota", "/etc/ota/database/password", "require"),
                         (found["DATABASE_URL"], found["OTA_DATABASE_PASSWORD_FILE"], found["PGSSLMODE"]))
        self.assertEqual("postgres://ota@[fd00::1]:5432/ota", environment({"database": {"existingSecret": "", "host": "fd00::1"}})["DATABASE_URL"])

    def test_cloudnative_pgs_secret_is_used_as_it_is(self):
        rendered = chart.objects(chart.example(chart.CHART / "examples/cnpg.yaml"))
        found = chart.environment(chart.server(rendered))
        self.assertEqual(("/etc/ota/database/uri", "verify-full", "/etc/ota/database-ca/ca.crt"),
                         (found["OTA_DATABASE_URL_FILE"], found["PGSSLMODE"], found["PGSSLROOTCERT"]))
        job = rendered["Job", "ota-migrate"]["spec"]["template"]["spec"]
        self.assertEqual({"database", "database-ca", "data", "tmp"}, {one["name"] for one in job["volumes"]})

    def test_payloads_go_to_the_bucket_or_to_the_volume(self):
        self.assertEqual("s3://payloads/a/b", environment({"objectStore": {"prefix": "/a/b/"}})["OTA_BLOB_STORE"])
        given = chart.values({"objectStore": {"bucket": ""}, "persistence": {"enabled": True}, "replicas": 1})
        rendered = chart.objects(given)
        self.assertEqual("/var/lib/ota/blobs", chart.environment(chart.server(rendered))["OTA_BLOB_STORE"])
        self.assertEqual({"type": "Recreate"}, rendered["Deployment", "ota"]["spec"]["strategy"])
        self.assertEqual("keep", rendered["PersistentVolumeClaim", "ota-payloads"]["metadata"]["annotations"]["helm.sh/resource-policy"])
        shared = chart.objects(chart.values(given, {"persistence": {"accessModes": ["ReadWriteMany"]}, "replicas": 2}))
        self.assertEqual("RollingUpdate", shared["Deployment", "ota"]["spec"]["strategy"]["type"])

    def test_the_chart_brings_no_other_chart(self):
        self.assertNotIn("dependencies", chart.yaml.safe_load((chart.CHART / "Chart.yaml").read_text()))


class Replicas(unittest.TestCase):
    def test_autoscaling_decides_alone(self):
        rendered = chart.objects(chart.values({"autoscaling": {"enabled": True}}))
        self.assertNotIn("replicas", rendered["Deployment", "ota"]["spec"])
        self.assertEqual("ota", rendered["HorizontalPodAutoscaler", "ota"]["spec"]["scaleTargetRef"]["name"])
        self.assertEqual(2, chart.objects(chart.LEAST)["Deployment", "ota"]["spec"]["replicas"])

    def test_an_upgrade_never_has_fewer_replicas(self):
        self.assertEqual({"maxSurge": 1, "maxUnavailable": 0}, chart.objects(chart.LEAST)["Deployment", "ota"]["spec"]["strategy"]["rollingUpdate"])

    def test_a_drain_takes_one_at_a_time_and_sick_pods_at_once(self):
        found = chart.objects(chart.LEAST)["PodDisruptionBudget", "ota"]["spec"]
        self.assertEqual((1, "AlwaysAllow"), (found["maxUnavailable"], found["unhealthyPodEvictionPolicy"]))

    def test_pods_spread_over_zones_and_nodes_where_they_can(self):
        found = pod(chart.objects(chart.LEAST))["topologySpreadConstraints"]
        self.assertEqual([("topology.kubernetes.io/zone", "ScheduleAnyway"), ("kubernetes.io/hostname", "ScheduleAnyway")],
                         [(one["topologyKey"], one["whenUnsatisfiable"]) for one in found])
        labels = chart.objects(chart.LEAST)["Deployment", "ota"]["spec"]["selector"]["matchLabels"]
        self.assertTrue(all(one["labelSelector"]["matchLabels"] == labels for one in found))

    def test_a_pod_has_the_time_to_stop_that_its_settings_take(self):
        for server, seconds in (({}, 35), ({"stopDelay": "15s", "drainTimeout": "2m"}, 145), ({"stopDelay": "0s", "drainTimeout": "1h"}, 3610),
                                ({"stopDelay": "500ms"}, 31)):
            given = chart.values({"server": server})
            for made in (chart.objects(given), chart.objects3(given)):
                self.assertEqual(seconds, pod(made)["terminationGracePeriodSeconds"])

    def test_an_image_is_named_by_digest_tag_or_the_charts_version(self):
        digest = "sha256:" + "a" * 64
        for image, expected in (({}, "ghcr.io/ota-project/ota:0.1.0"), ({"tag": "1"}, "ghcr.io/ota-project/ota:1"), ({"registry": ""}, "ota-project/ota:0.1.0"),
                                ({"tag": "1", "digest": digest}, f"ghcr.io/ota-project/ota@{digest}")):
            self.assertEqual(expected, chart.server(chart.objects(chart.values({"image": image})))["image"])
        self.assertEqual("mirror/ota-project/ota:0.1.0", chart.server(chart.objects(chart.values({"global": {"imageRegistry": "mirror"}})))["image"])


class Network(unittest.TestCase):
    GIVEN = chart.values({"networkPolicy": {"enabled": True, "admin": {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
                                            "database": {"to": [{"podSelector": {"matchLabels": {"a": "b"}}}]}}})

    def test_each_port_lets_in_its_own_callers(self):
        policy = chart.objects(self.GIVEN)["NetworkPolicy", "ota"]["spec"]
        self.assertEqual(["Ingress", "Egress"], policy["policyTypes"])
        rules = policy["ingress"]
        found = {rule["ports"][0]["port"]: rule.get("from") for rule in rules}
        self.assertIsNone(found["grpc"])
        self.assertEqual({"cidr": "192.0.2.0/24"}, found["admin"][0]["ipBlock"])
        self.assertEqual({"namespaceSelector": {}}, found["metrics"][0])

    def test_helm_test_may_pass_what_others_may_not(self):
        labels = chart.objects(self.GIVEN)["Pod", "ota-health"]["metadata"]["labels"]
        for rule in chart.objects(self.GIVEN)["NetworkPolicy", "ota"]["spec"]["ingress"]:
            if "from" in rule:
                self.assertLessEqual(rule["from"][-1]["podSelector"]["matchLabels"].items(), labels.items())

    def test_pods_reach_what_they_need_and_no_more(self):
        ports = lambda name, *changes: [[one["port"] for one in rule["ports"]]
                                        for rule in chart.objects(chart.values(self.GIVEN, *changes))["NetworkPolicy", name]["spec"]["egress"]]
        self.assertEqual([[53, 53], [5432], [443]], ports("ota"))
        self.assertEqual([[53, 53], [5432]], ports("ota-migrate"))
        self.assertEqual([[53, 53], [6432], [9000], [443]], ports("ota", {
            "database": {"port": 6432}, "networkPolicy": {"objectStore": {"ports": [9000]}}, "oidc": {"issuer": "https://x", "clientId": "x", "roles": ["a=admin"]}}))

    def test_the_job_has_a_policy_too(self):
        rendered = chart.objects(self.GIVEN)
        labels = rendered["Job", "ota-migrate"]["spec"]["template"]["metadata"]["labels"]
        self.assertLessEqual(rendered["NetworkPolicy", "ota-migrate"]["spec"]["podSelector"]["matchLabels"].items(), labels.items())


class Extras(unittest.TestCase):
    def test_templates_in_extra_objects_are_filled_in(self):
        for one in ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": '{{ include "ota.fullname" . }}-x'}},
                    'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ include "ota.fullname" . }}-x\n'):
            self.assertIn(("ConfigMap", "ota-x"), chart.objects(chart.values({"extraObjects": [one]})))

    def test_what_is_optional_is_off_by_default(self):
        kinds = {kind for kind, _ in chart.objects(chart.LEAST)}
        self.assertEqual({"Deployment", "Job", "Pod", "PodDisruptionBudget", "Secret", "Service", "ServiceAccount"}, kinds)


if __name__ == "__main__":
    unittest.main()
