INSERT INTO api_token (id, display_name, role, secret_sha256, created_at)
VALUES
    ('01939000-0000-7000-8000-000000000001', 'ada', 'admin', decode(repeat('01', 32), 'hex'), '2026-01-01T00:00:00Z'),
    ('01939000-0000-7000-8000-000000000002', 'eve', 'viewer', decode(repeat('02', 32), 'hex'), '2026-01-02T00:00:00Z');
UPDATE api_token
SET expires_at = '2026-02-01T00:00:00Z', last_used_at = '2026-01-03T00:00:00Z', revoked_at = '2026-01-04T00:00:00Z'
WHERE display_name = 'eve';

INSERT INTO event (kind, actor, actor_display_name, subject, details, request_id)
VALUES
    (
        'api_token.created', 'apiTokens/01939000-0000-7000-8000-000000000001', 'ada',
        'apiTokens/01939000-0000-7000-8000-000000000002', '{"role": "viewer"}', 'r-1'
    ),
    ('api_token.created', 'server', '', 'apiTokens/01939000-0000-7000-8000-000000000001', '{}', '');
