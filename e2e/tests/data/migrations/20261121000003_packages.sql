INSERT INTO payload (sha256, size_bytes, created_at)
VALUES
    (decode(repeat('31', 32), 'hex'), 1000, '2026-01-01T00:00:00Z'),
    (decode(repeat('32', 32), 'hex'), 17179869184, '2026-01-02T00:00:00Z');

INSERT INTO dropped_payload (sha256)
VALUES (decode(repeat('33', 32), 'hex'));

INSERT INTO upload (id, sha256, size_bytes, received_bytes, hash_state, created_at, expires_at)
VALUES (
    '01939000-0000-7000-8000-000000000031', decode(repeat('34', 32), 'hex'), 1000, 500, decode('00', 'hex'),
    '2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z'
);

INSERT INTO package (id, name, description, last_release_counter, created_at)
VALUES
    ('01939000-0000-7000-8000-000000000041', 'app', 'The app', 2, '2026-01-01T00:00:00Z'),
    ('01939000-0000-7000-8000-000000000042', 'empty', '', 0, '2026-01-02T00:00:00Z');

INSERT INTO release (id, package_id, version, release_counter, hardware, installer, payload_sha256, notes, state, created_at, creator)
VALUES
    (
        '01939000-0000-7000-8000-000000000051', '01939000-0000-7000-8000-000000000041', '1.0.0', 1, '{rpi4}', 'directory',
        decode(repeat('31', 32), 'hex'), 'First.', 'published', '2026-01-01T00:00:00Z', 'server'
    ),
    (
        '01939000-0000-7000-8000-000000000052', '01939000-0000-7000-8000-000000000041', '2.0.0-rc.1', 2, '{}', 'file',
        decode(repeat('32', 32), 'hex'), '', 'yanked', '2026-01-02T00:00:00Z', 'server'
    );
