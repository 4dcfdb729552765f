INSERT INTO api_token (id, display_name, role, secret_sha256, created_at, device_selector, package_prefix)
VALUES
    (
        '01939000-0000-7000-8000-000000000003', 'lab', 'deployer', decode(repeat('03', 32), 'hex'),
        '2026-01-01T00:00:00Z', 'site=lab', 'gateway-'
    );

INSERT INTO event (kind, actor, actor_display_name, subject, source_address)
VALUES
    (
        'api_token.created', 'apiTokens/01939000-0000-7000-8000-000000000001', 'ada',
        'apiTokens/01939000-0000-7000-8000-000000000003', '192.0.2.7'
    );

INSERT INTO event_seal (number, last_transaction, last_id, event_count, previous_sha256, sha256, at)
VALUES (1, '1000', 1, 1, decode(repeat('00', 32), 'hex'), decode(repeat('01', 32), 'hex'), '2026-01-01T00:00:00Z');
