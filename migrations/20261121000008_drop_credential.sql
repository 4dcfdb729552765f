-- Devices are known by their keys alone.

ALTER TABLE device DROP COLUMN credential_sha256;
