INSERT INTO device (id, state, hardware, public_key, enroll_token_id, created_at)
VALUES (
    '01939000-0000-7000-8000-000000000023', 'accepted', 'rpi4',
    decode('3059301306072a8648ce3d020106082a8648ce3d030107034200' || '04' || repeat('42', 64), 'hex'),
    '01939000-0000-7000-8000-000000000011', '2026-01-04T00:00:00Z'
);
