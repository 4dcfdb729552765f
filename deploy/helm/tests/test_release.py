"""What a cluster sees of an install and an upgrade, and in which order."""

import unittest

import chart
from release import with_both_helms

JOB = ("jobs", "ota-migrate")


def calls(cluster):
    """What was made, changed and deleted, without Helm's own notes."""
    return [call for call in cluster.calls if not call[2].startswith("sh.helm.release")]


class Release(unittest.TestCase):
    @with_both_helms
    def test_the_job_is_done_and_gone_before_anything_else_is_made(self, cluster, helm):
        helm.install(chart.LEAST)
        self.assertEqual([("make", *JOB), ("delete", *JOB)], calls(cluster)[:2])
        self.assertIn(("make", "deployments", "ota"), calls(cluster)[2:])
        cluster.calls.clear()
        helm.upgrade({**chart.LEAST, "replicas": 3})
        self.assertEqual([("make", *JOB), ("delete", *JOB)], calls(cluster)[:2])
        self.assertIn(("change", "deployments", "ota"), calls(cluster)[2:])

    @with_both_helms
    def test_a_job_that_fails_stops_the_upgrade_and_leaves_its_log(self, cluster, helm):
        helm.install(chart.LEAST)
        cluster.calls.clear()
        cluster.jobs_fail = True
        with self.assertRaises(Exception):
            helm.upgrade({**chart.LEAST, "replicas": 3})
        self.assertEqual([("make", *JOB)], calls(cluster))
        self.assertEqual(2, cluster.get("deployments", "ota")["spec"]["replicas"])
        self.assertIsNotNone(cluster.get(*JOB))

    @with_both_helms
    def test_after_a_job_that_failed_the_next_upgrade_makes_another(self, cluster, helm):
        helm.install(chart.LEAST)
        cluster.jobs_fail = True
        with self.assertRaises(Exception):
            helm.upgrade(chart.LEAST)
        cluster.jobs_fail = False
        cluster.calls.clear()
        helm.upgrade({**chart.LEAST, "replicas": 3})
        self.assertEqual([("delete", *JOB), ("make", *JOB), ("delete", *JOB)], calls(cluster)[:3])
        self.assertEqual(3, cluster.get("deployments", "ota")["spec"]["replicas"])

    @with_both_helms
    def test_a_plain_job_is_one_of_the_releases_objects(self, cluster, helm):
        helm.install(chart.values({"migrations": {"useHelmHooks": False}}))
        made = [name for what, resource, name in calls(cluster) if (what, resource) == ("make", "jobs")]
        self.assertEqual(1, len(made))
        helm.upgrade(chart.values({"migrations": {"useHelmHooks": False}, "image": {"tag": "9"}}))
        made = [name for what, resource, name in calls(cluster) if (what, resource) == ("make", "jobs")]
        self.assertEqual(2, len(set(made)))

    @with_both_helms
    def test_an_uninstall_leaves_the_key_the_token_and_the_payloads(self, cluster, helm):
        helm.install(chart.values({"objectStore": {"bucket": ""}, "persistence": {"enabled": True}, "replicas": 1}))
        helm.uninstall()
        self.assertEqual({("persistentvolumeclaims", "ota", "ota-payloads"), ("secrets", "ota", "ota-key-encryption-key"), ("secrets", "ota", "ota-admin-token")},
                         set(cluster.objects))


if __name__ == "__main__":
    unittest.main()
