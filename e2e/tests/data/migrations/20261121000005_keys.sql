INSERT INTO server_key (name, public_key, sealed, kek_id, certificate, created_at)
VALUES
    ('certificate-authority', decode('3001', 'hex'), decode('01', 'hex'), '00', decode('30', 'hex'), '2026-01-01T00:00:00Z'),
    ('session', '', decode('02', 'hex'), '00', NULL, '2026-01-01T00:00:00Z');

INSERT INTO trust_metadata (repository, role, version, document, expires_at, created_at)
VALUES
    ('image', 'root', 1, '{}', '2027-01-01T00:00:00Z', '2026-01-01T00:00:00Z'),
    ('image', 'targets', 2, '{}', '2027-01-01T00:00:00Z', '2026-01-02T00:00:00Z'),
    ('director', 'root', 1, '{}', '2027-01-01T00:00:00Z', '2026-01-01T00:00:00Z');

INSERT INTO director_document (
    device_id, version, content_sha256, timestamp_document, snapshot_document, targets_document, signed_at, expires_at
)
SELECT id, 1, decode(repeat('35', 32), 'hex'), '{}', '{}', '{}', '2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z'
FROM device
LIMIT 1;

UPDATE release SET signed_at = '2026-01-03T00:00:00Z' WHERE version = '1.0.0';
