"""Alerts fire when they should and only then, and the dashboard shows what the server counts."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest

import chart

# What the server's page has, by the names that Prometheus gives them, with their labels.
CALL = {"grpc_type", "grpc_service", "grpc_method"}
METRICS = {
    "grpc_server_started_total": CALL, "grpc_server_handled_total": CALL | {"grpc_code"},
    "grpc_server_msg_received_total": CALL, "grpc_server_msg_sent_total": CALL,
    "grpc_server_handling_seconds_bucket": CALL | {"le"}, "ota_build_info": {"version"}, "ota_devices": {"state"}, "ota_devices_online": set(),
    "ota_devices_disbelieving": set(), "ota_devices_conflicting": set(),
    "ota_device_streams": set(), "ota_updates_total": {"result", "reason"}, "ota_update_phase_duration_seconds_bucket": {"phase", "le"},
    "ota_rollouts": {"state"}, "ota_deployments_open": set(), "ota_artifact_bytes_sent_total": set(), "ota_db_pool_connections": {"state"},
    "ota_db_pool_connections_max": set(), "ota_db_up": set(), "ota_metadata_expiry_timestamp_seconds": {"repository", "role"},
    "ota_tls_certificate_expiry_timestamp_seconds": set(), "ota_root_keys_managed": set(),
}
TARGET = {"namespace", "job", "pod", "instance", "service", "endpoint", "container"}
ON = chart.values({"metrics": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboard": {"enabled": True}}})
JOB = 'namespace="ota",job="ota-metrics"'


def series(name, values, **labels):
    given = "".join(f',{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{JOB},pod=\"ota-1\"{given}}}", "values": values}


def calls(code, each, method="CheckIn"):
    return series("grpc_server_handled_total", f"0+{each}x200", grpc_method=method, grpc_code=code)


def updates(result, each):
    return series("ota_updates_total", f"0+{each}x200", result=result)


# For each alert: what makes it fire after so many minutes, and what is near it and does not.
DAY = 86400
ALERTS = {
    "OtaServerGone": (20, [], [series("up", "1x200")]),
    "OtaServerDown": (20, [series("up", "0x200")], [series("up", "1x5 0x5 1x200")]),
    "OtaDatabaseDown": (20, [series("ota_db_up", "0x200")], [series("ota_db_up", "1x200")]),
    "OtaErrors": (40, [calls("OK", 90), calls("Internal", 10)], [calls("OK", 90), calls("NotFound", 50), calls("Internal", 1), calls("Unavailable", 50, "Watch")]),
    "OtaDevicesOffline": (90, [series("ota_devices_online", "1000x70 700x200")], [series("ota_devices_online", "1000x70 900x200")]),
    "OtaDevicesDisbelieve": (40, [series("ota_devices_disbelieving", "0x5 1x200")], [series("ota_devices_disbelieving", "0x200")]),
    "OtaDevicesConflict": (20, [series("ota_devices_conflicting", "1x200")], [series("ota_devices_conflicting", "0x200")]),
    "OtaRolloutStalled": (180, [series("ota_deployments_open", "5x200"), updates("succeeded", 0)], [series("ota_deployments_open", "5x200"), updates("succeeded", 1)]),
    "OtaUpdatesFail": (90, [updates("succeeded", 8), updates("rolled_back", 2)], [updates("succeeded", 95), updates("failed", 5), updates("superseded", 50)]),
    "OtaDatabasePoolFull": (20, [series("ota_db_pool_connections", "16x200", state="used"), series("ota_db_pool_connections", "0x200", state="idle"), series("ota_db_pool_connections_max", "16x200")],
                            [series("ota_db_pool_connections", "8x200", state="used"), series("ota_db_pool_connections", "8x200", state="idle"), series("ota_db_pool_connections_max", "16x200")]),
    "OtaCertificateExpires": (90, [series("ota_tls_certificate_expiry_timestamp_seconds", f"{13 * DAY}x200")], [series("ota_tls_certificate_expiry_timestamp_seconds", f"{15 * DAY}x200")]),
    "OtaListExpires": (90, [series("ota_metadata_expiry_timestamp_seconds", f"{13 * DAY}x200", repository="image", role="targets")],
                       [series("ota_metadata_expiry_timestamp_seconds", f"{15 * DAY}x200", repository="image", role="targets"),
                        series("ota_metadata_expiry_timestamp_seconds", f"{4 * DAY}x200", repository="image", role="snapshot"),
                        series("ota_metadata_expiry_timestamp_seconds", f"{DAY}x200", repository="image", role="timestamp")]),
}


def rules(*changes):
    return chart.objects(chart.values(ON, *changes))["PrometheusRule", "ota"]["spec"]


def alerts(*changes):
    return {rule["alert"]: rule for group in rules(*changes)["groups"] for rule in group["rules"]}


def promtool(*arguments, **files):
    program = shutil.which("promtool")
    assert program, "no promtool: scripts/setup.sh promtool"
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            with open(f"{folder}/{name}.yaml", "w") as file:
                chart.yaml.safe_dump(content, file)
        done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def fires(alert, minutes, given):
    """Whether the alert fires by then; promtool says what is there where nothing is awaited."""
    case = {"interval": "1m", "input_series": given, "alert_rule_test": [{"eval_time": f"{minutes}m", "alertname": alert, "exp_alerts": []}]}
    code, said = promtool("test", "rules", "test.yaml", rules=rules(), test={"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]})
    assert code == 0 or "got:" in said, said
    return code != 0


def expressions():
    for name, rule in alerts().items():
        yield name, rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def dashboard():
    return json.loads(chart.objects(ON)["ConfigMap", "ota-dashboard"]["data"]["ota.json"])


class Alerts(unittest.TestCase):
    def test_promtool_takes_the_rules(self):
        code, said = promtool("check", "rules", "rules.yaml", rules=rules())
        self.assertEqual(0, code, said)

    def test_each_fires_for_its_cause_and_is_silent_near_it(self):
        self.assertEqual(set(alerts()), set(ALERTS))
        for name, (minutes, cause, near) in ALERTS.items():
            with self.subTest(name):
                self.assertTrue(fires(name, minutes, cause), "is silent")
                self.assertFalse(fires(name, minutes, near), "fires")

    def test_each_says_what_happened_and_what_to_do(self):
        for name, rule in alerts().items():
            self.assertEqual({"summary", "description", "runbook"}, set(rule["annotations"]), name)
            self.assertIn(rule["labels"]["severity"], ("warning", "critical"), name)

    def test_thresholds_labels_and_names_are_the_values(self):
        found = alerts({"metrics": {"prometheusRule": {"errorRatio": 0.25, "stalledHours": 7, "disabled": ["OtaServerDown"],
                                                       "additionalLabels": {"team": "edge"}, "additionalRules": [{"alert": "Mine", "expr": "vector(1)"}]}}})
        self.assertIn("> 0.25", found["OtaErrors"]["expr"])
        self.assertIn("[7h]", found["OtaRolloutStalled"]["expr"])
        self.assertNotIn("OtaServerDown", found)
        self.assertIn("Mine", found)
        self.assertEqual({"severity": "critical", "team": "edge"}, found["OtaServerGone"]["labels"])
        self.assertNotIn("@", "".join(chart.yaml.safe_dump(rule) for rule in found.values()))

    def test_they_ask_of_this_release_alone(self):
        for name, rule in alerts().items():
            for selector in re.findall(r"\b(?:up|ota_\w+|grpc_\w+)\{([^}]*)\}", rule["expr"]):
                self.assertTrue(selector.startswith(JOB), f"{name}: {selector}")

    def test_the_service_monitor_finds_the_service_whose_name_the_alerts_have(self):
        rendered = chart.objects(ON)
        wanted = rendered["ServiceMonitor", "ota"]["spec"]
        found = [(name, [port["name"] for port in one["spec"]["ports"]]) for (kind, name), one in rendered.items()
                 if kind == "Service" and wanted["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()]
        self.assertEqual([("ota-metrics", [wanted["endpoints"][0]["port"]])], found)


class Dashboard(unittest.TestCase):
    def test_alerts_and_panels_use_metrics_and_labels_that_the_server_has(self):
        used = set()
        for where, expression in expressions():
            for name, selector in re.findall(r"\b((?:ota|grpc_server)_\w+)(?:\{([^}]*)\})?", expression):
                if selector == "" and name not in METRICS:
                    self.fail(f"{where}: {name}")
                used.add(name)
                self.assertIn(name, METRICS, where)
                for label in re.findall(r'(\w+)(?:=~|!~|!=|=)"', selector):
                    self.assertIn(label, METRICS[name] | TARGET, f"{where}: {name}")
        self.assertLessEqual(set(METRICS) - {"grpc_server_msg_received_total", "grpc_server_msg_sent_total"}, used, "nobody looks at these")

    def test_every_metric_is_one_of_the_servers_source(self):
        source = "".join(path.read_text() for path in (chart.ROOT / "server/src/metrics").rglob("*.rs"))
        for name in METRICS:
            stem = re.sub(r"(_bucket|_total|_info)$", "", name)
            self.assertTrue(f'"{stem}"' in source or f'"{stem.removesuffix("_seconds")}"' in source, f"{name} is nowhere in server/src/metrics")

    def test_promtool_can_read_every_expression(self):
        made = {"groups": [{"name": "panels", "rules": [
            {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")} for number, (_, expression) in enumerate(expressions())]}]}
        code, said = promtool("check", "rules", "rules.yaml", rules=made)
        self.assertEqual(0, code, said)

    def test_panels_do_not_overlap_and_have_a_number_each(self):
        taken, found = set(), dashboard()
        self.assertEqual(len(found["panels"]), len({panel["id"] for panel in found["panels"]}))
        for panel in found["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertLessEqual(at["x"] + at["w"], 24, panel["title"])
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells

    def test_the_sidecar_finds_it_where_it_looks(self):
        given = {"metrics": {"dashboard": {"namespace": "monitoring", "label": "look", "labelValue": "here", "folderAnnotation": "into", "folder": "Fleet"}}}
        found = chart.objects(chart.values(ON, given))["ConfigMap", "ota-dashboard"]["metadata"]
        self.assertEqual(("monitoring", "here", {"into": "Fleet"}), (found["namespace"], found["labels"]["look"], found["annotations"]))


if __name__ == "__main__":
    unittest.main()
