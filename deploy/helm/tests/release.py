"""A release on a cluster in memory, in the hands of either Helm."""

import tempfile

import helm_python

import chart
from cluster import Cluster


class Helm3:
    """The program, on a cluster."""

    def __init__(self, cluster):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".kubeconfig")
        self.file.write(cluster.kubeconfig)
        self.file.flush()

    def run(self, *arguments, given=None):
        done = chart.helm3(*arguments, "-n", "ota", "--kubeconfig", self.file.name, given=given)
        if done.returncode:
            raise RuntimeError(done.stderr)

    def install(self, given):
        self.run("install", "ota", chart.CHART, given=given)

    def upgrade(self, given):
        self.run("upgrade", "ota", chart.CHART, given=given)

    def rollback(self):
        self.run("rollback", "ota", "1")

    def uninstall(self):
        self.run("uninstall", "ota")


class Helm4:
    """The library, on a cluster."""

    def __init__(self, cluster):
        self.config = helm_python.Config(kubeconfig_content=cluster.kubeconfig, namespace="ota", storage_driver="memory")
        self.chart = helm_python.Chart.load(chart.CHART)

    def install(self, given):
        self.config.install(self.chart, "ota", given, namespace="ota")

    def upgrade(self, given):
        self.config.upgrade(self.chart, "ota", given, namespace="ota")

    def rollback(self):
        self.config.rollback("ota", version=1)

    def uninstall(self):
        self.config.uninstall("ota")


def with_both_helms(test):
    def run(self):
        for helm in (Helm3, Helm4):
            with self.subTest(helm.__name__), Cluster() as cluster:
                test(self, cluster, helm(cluster))
    run.__name__ = test.__name__
    return run
