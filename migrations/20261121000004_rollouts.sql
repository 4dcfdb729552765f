-- Campaigns, and each device's journey in them.

CREATE TYPE rollout_state AS ENUM ('active', 'completed', 'canceled');
CREATE TYPE deployment_state AS ENUM (
    'queued', 'granted', 'downloading', 'installing', 'rebooting', 'verifying',
    'succeeded', 'failed', 'rolled_back', 'rejected', 'timed_out', 'canceled', 'superseded'
);

CREATE TABLE rollout (
    id UUID PRIMARY KEY,
    release_id UUID NOT NULL REFERENCES release,
    -- The selector that chose the devices, 'all' as NULL with all_devices; neither when they were named one by one.
    selector TEXT,
    all_devices BOOLEAN NOT NULL DEFAULT FALSE,
    state ROLLOUT_STATE NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    creator TEXT NOT NULL,
    ended_at TIMESTAMPTZ,
    CHECK (NOT (all_devices AND selector IS NOT NULL)),
    CHECK ((state = 'active') = (ended_at IS NULL))
);

CREATE INDEX rollout_release ON rollout (release_id);
CREATE INDEX rollout_active ON rollout (id) WHERE state = 'active';
-- Lists are in this order; the id alone would not do, because the caller may choose it.
CREATE INDEX rollout_page ON rollout (created_at, id);

CREATE TABLE deployment (
    id UUID PRIMARY KEY,
    rollout_id UUID NOT NULL REFERENCES rollout,
    device_id UUID NOT NULL REFERENCES device ON DELETE CASCADE,
    release_id UUID NOT NULL REFERENCES release,
    -- The release's package, kept here for the index that allows one open deployment per device and package. The release
    -- refers to it already; another foreign key would cost a check for each of 100,000 rows.
    package_id UUID NOT NULL,
    state DEPLOYMENT_STATE NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    sequence BIGINT NOT NULL DEFAULT 0 CHECK (sequence >= 0),
    bytes_done BIGINT NOT NULL DEFAULT 0 CHECK (bytes_done >= 0),
    failure_code TEXT,
    failure_message TEXT,
    failure_log_tail TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    ended_at TIMESTAMPTZ,
    -- When what the device should do last changed: created, retried or ended. The sweep reads it.
    changed_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT deployment_device_key UNIQUE (rollout_id, device_id),
    CHECK ((ended_at IS NOT NULL) = (state IN (
        'succeeded', 'failed', 'rolled_back', 'rejected', 'timed_out', 'canceled', 'superseded'
    )))
);

-- A device works towards one release of a package at a time.
CREATE UNIQUE INDEX deployment_open ON deployment (device_id, package_id) WHERE ended_at IS NULL;
CREATE INDEX deployment_rollout ON deployment (rollout_id, state);
CREATE INDEX deployment_rollout_page ON deployment (rollout_id, id);
CREATE INDEX deployment_device ON deployment (device_id, id);
CREATE INDEX deployment_release ON deployment (release_id);
CREATE INDEX deployment_changed ON deployment (changed_at);
