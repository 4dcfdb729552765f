INSERT INTO enroll_token (id, secret_sha256, max_uses, uses, expires_at, approval_required, hardware, labels, created_at, creator)
VALUES (
    '01939000-0000-7000-8000-000000000011', decode(repeat('11', 32), 'hex'), 10, 2, '2026-02-01T00:00:00Z', TRUE,
    '{rpi4,rpi5}', '{"site": "lab"}', '2026-01-01T00:00:00Z', 'apiTokens/01939000-0000-7000-8000-000000000001'
);

INSERT INTO device (id, state, hardware, hardware_id, labels, credential_sha256, enroll_token_id, created_at)
VALUES
    (
        '01939000-0000-7000-8000-000000000021', 'accepted', 'rpi4', 'serial-1', '{"site": "lab"}',
        decode(repeat('21', 32), 'hex'), '01939000-0000-7000-8000-000000000011', '2026-01-02T00:00:00Z'
    ),
    (
        '01939000-0000-7000-8000-000000000022', 'pending', 'rpi5', '', '{}',
        decode(repeat('22', 32), 'hex'), '01939000-0000-7000-8000-000000000011', '2026-01-03T00:00:00Z'
    );
UPDATE device
SET inventory = '{"hostname": "one"}', inventory_sha256 = decode(repeat('23', 32), 'hex'), inventory_at = '2026-01-04T00:00:00Z'
WHERE state = 'accepted';

INSERT INTO device_presence (device_id, last_seen_at, agent_version)
VALUES ('01939000-0000-7000-8000-000000000021', '2026-01-05T00:00:00Z', '0.1.0');

INSERT INTO device_running (device_id, package, version, payload_sha256, since)
VALUES ('01939000-0000-7000-8000-000000000021', 'app', '1.0.0', decode(repeat('31', 32), 'hex'), '2026-01-05T00:00:00Z');
