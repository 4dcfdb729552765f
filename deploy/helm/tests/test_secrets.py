"""The key-encryption key and the first token are made once and kept, whatever happens to the release."""

import base64
import re
import unittest

import chart
from release import with_both_helms

GIVEN = chart.LEAST
KEY, TOKEN = "ota-key-encryption-key", "ota-admin-token"
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def secrets(cluster):
    return [cluster.get("secrets", name)["data"] for name in (KEY, TOKEN)]


class Secrets(unittest.TestCase):
    @with_both_helms
    def test_they_outlive_upgrade_rollback_uninstall_and_a_new_install(self, cluster, helm):
        helm.install(GIVEN)
        made = secrets(cluster)
        helm.upgrade({**GIVEN, "replicas": 3})
        self.assertEqual(3, cluster.get("deployments", "ota")["spec"]["replicas"])
        self.assertEqual(made, secrets(cluster))
        helm.rollback()
        self.assertEqual(2, cluster.get("deployments", "ota")["spec"]["replicas"])
        self.assertEqual(made, secrets(cluster))
        helm.uninstall()
        self.assertIsNone(cluster.get("deployments", "ota"))
        self.assertEqual(made, secrets(cluster))
        helm.install(GIVEN)
        self.assertEqual(made, secrets(cluster))

    @with_both_helms
    def test_a_new_key_is_refused_where_nobody_could_look(self, cluster, helm):
        helm.install(GIVEN)
        made = secrets(cluster)
        # What `helm template | kubectl apply` sends.
        fresh = chart.objects(GIVEN)["Secret", KEY]
        self.assertEqual(422, cluster.store(("secrets", "ota", KEY), fresh)[0])
        self.assertEqual(made, secrets(cluster))

    @with_both_helms
    def test_a_secret_of_that_name_without_the_key_is_refused_with_a_hint(self, cluster, helm):
        helm.install(GIVEN)
        cluster.get("secrets", KEY)["data"] = {"other": "eA=="}
        with self.assertRaisesRegex(Exception, f"{KEY} is there and has no key key-encryption-key"):
            helm.upgrade(GIVEN)

    def test_each_release_has_its_own(self):
        one, two = (chart.objects(GIVEN)["Secret", KEY]["data"] for _ in range(2))
        self.assertNotEqual(one, two)

    def test_the_key_is_32_bytes_in_base64(self):
        text = base64.b64decode(chart.objects(GIVEN)["Secret", KEY]["data"]["key-encryption-key"])
        self.assertEqual(32, len(base64.b64decode(text, validate=True)))

    def test_the_token_has_the_form_that_the_server_reads(self):
        for _ in range(60):
            token = base64.b64decode(chart.objects(GIVEN)["Secret", TOKEN]["data"]["admin-token"]).decode()
            found = re.fullmatch(r"ota_([0-9a-f]{32})_([1-9A-HJ-NP-Za-km-z]{43})", token)
            self.assertIsNotNone(found, token)
            number = 0
            for digit in found[2]:
                number = number * 58 + ALPHABET.index(digit)
            self.assertEqual(32, (number.bit_length() + 7) // 8)

    def test_existing_secrets_are_used_and_none_is_made(self):
        given = chart.values({"keyEncryptionKey": {"existingSecret": "my-key", "secretKey": "k"}, "adminToken": {"existingSecret": "my-token", "secretKey": "t"}})
        rendered = chart.objects(given)
        self.assertEqual([], [key for key in rendered if key[0] == "Secret"])
        volumes = {one["name"]: one.get("secret") for one in rendered["Deployment", "ota"]["spec"]["template"]["spec"]["volumes"]}
        self.assertEqual(("my-key", "k"), (volumes["key-encryption-key"]["secretName"], volumes["key-encryption-key"]["items"][0]["key"]))
        self.assertEqual(("my-token", "t"), (volumes["admin-token"]["secretName"], volumes["admin-token"]["items"][0]["key"]))

    def test_without_a_first_token_none_is_mounted(self):
        rendered = chart.objects(chart.values({"adminToken": {"create": False}}))
        self.assertNotIn(("Secret", TOKEN), rendered)
        self.assertNotIn("OTA_ADMIN_TOKEN_FILE", chart.environment(chart.server(rendered)))

    def test_secrets_are_files_and_never_environment_variables(self):
        for path in chart.EXAMPLES:
            for found in chart.objects(chart.example(path)).values():
                text = chart.yaml.safe_dump(found)
                self.assertNotIn("secretKeyRef", text, path.name)
                self.assertNotIn("AWS_SECRET_ACCESS_KEY", text, path.name)

    def test_files_are_where_the_variables_say(self):
        given = chart.values({"objectStore": {"existingSecret": "store", "secretKeys": {"accessKeyId": "id"}}, "database": {"secretKeys": {"uri": "url"}},
                              "tls": {"mode": "secret", "existingSecret": "tls"}, "forwardedCertificates": {"names": ["x"], "existingSecret": "proxies"}})
        rendered = chart.objects(given)
        volumes = {one["name"]: one for one in rendered["Deployment", "ota"]["spec"]["template"]["spec"]["volumes"]}
        files = {f"{mount['mountPath']}/{item['path']}": item["key"] for mount in chart.server(rendered)["volumeMounts"]
                 for item in volumes[mount["name"]].get("secret", {}).get("items", [])}
        environment = chart.environment(chart.server(rendered))
        self.assertEqual({
            "OTA_DATABASE_URL_FILE": "url", "OTA_KEY_FILE": "key-encryption-key", "OTA_ADMIN_TOKEN_FILE": "admin-token",
            "OTA_S3_ACCESS_KEY_ID_FILE": "id", "OTA_S3_SECRET_ACCESS_KEY_FILE": "secret-access-key",
            "OTA_TLS_CERT": "tls.crt", "OTA_TLS_KEY": "tls.key", "OTA_TRUSTED_PROXY_CA": "ca.crt",
        }, {name: files[value] for name, value in environment.items() if str(value).startswith("/etc/ota/")})


if __name__ == "__main__":
    unittest.main()
