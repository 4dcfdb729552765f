-- The fleet, and how machines join it.

CREATE TYPE device_state AS ENUM ('pending', 'accepted', 'rejected', 'decommissioned');

CREATE TABLE enroll_token (
    id UUID PRIMARY KEY,
    description TEXT NOT NULL DEFAULT '',
    secret_sha256 BYTEA NOT NULL CHECK (length(secret_sha256) = 32),
    max_uses INTEGER NOT NULL CHECK (max_uses > 0),
    uses INTEGER NOT NULL DEFAULT 0 CHECK (uses BETWEEN 0 AND max_uses),
    expires_at TIMESTAMPTZ NOT NULL,
    approval_required BOOLEAN NOT NULL,
    hardware TEXT[] NOT NULL DEFAULT '{}',
    labels JSONB NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL,
    creator TEXT NOT NULL,
    revoked_at TIMESTAMPTZ
);

CREATE TABLE device (
    id UUID PRIMARY KEY,
    state DEVICE_STATE NOT NULL,
    hardware TEXT NOT NULL,
    hardware_id TEXT NOT NULL DEFAULT '',
    labels JSONB NOT NULL DEFAULT '{}',
    -- A machine that enrols again with the same credential is the same device.
    credential_sha256 BYTEA NOT NULL CONSTRAINT device_credential_key UNIQUE CHECK (length(credential_sha256) = 32),
    enroll_token_id UUID NOT NULL REFERENCES enroll_token,
    inventory JSONB,
    inventory_sha256 BYTEA,
    inventory_at TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    -- Counts operators' changes; the API's etag.
    revision BIGINT NOT NULL DEFAULT 1,
    -- When what the server keeps in memory of the device last changed. The sweep reads it.
    changed_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX device_enroll_token ON device (enroll_token_id);
CREATE INDEX device_changed ON device (changed_at);
CREATE INDEX device_labels ON device USING gin (labels);
CREATE INDEX device_hardware_id ON device (hardware_id) WHERE hardware_id <> '';

-- Written behind in batches: apart from the device, so that the hot rows stay small.
CREATE TABLE device_presence (
    device_id UUID PRIMARY KEY REFERENCES device ON DELETE CASCADE,
    last_seen_at TIMESTAMPTZ NOT NULL,
    agent_version TEXT NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE device_running (
    device_id UUID NOT NULL REFERENCES device ON DELETE CASCADE,
    -- By name, as the device says it: it may run what the server has never heard of.
    package TEXT NOT NULL,
    version TEXT NOT NULL,
    payload_sha256 BYTEA NOT NULL CHECK (length(payload_sha256) = 32),
    since TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (device_id, package)
);

CREATE INDEX device_running_release ON device_running (package, version);
