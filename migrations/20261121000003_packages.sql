-- Packages, their releases, and the payloads these install.

CREATE TYPE installer AS ENUM ('directory', 'file');
CREATE TYPE release_state AS ENUM ('published', 'yanked');

CREATE TABLE payload (
    sha256 BYTEA PRIMARY KEY CHECK (length(sha256) = 32),
    size_bytes BIGINT NOT NULL CHECK (size_bytes > 0),
    created_at TIMESTAMPTZ NOT NULL
);

-- Payloads that are deleted, whose bytes the blob store may still have: written with the deletion, removed with the bytes.
CREATE TABLE dropped_payload (
    sha256 BYTEA PRIMARY KEY CHECK (length(sha256) = 32)
);

CREATE TABLE upload (
    id UUID PRIMARY KEY,
    sha256 BYTEA NOT NULL CHECK (length(sha256) = 32),
    size_bytes BIGINT NOT NULL CHECK (size_bytes > 0),
    -- How far the blob store has the bytes for certain.
    received_bytes BIGINT NOT NULL DEFAULT 0 CHECK (received_bytes BETWEEN 0 AND size_bytes),
    -- The state of the SHA-256 after received_bytes, so that any replica can go on without reading them again.
    hash_state BYTEA NOT NULL,
    -- What the blob store needs to go on: nothing for a folder, the multipart upload and its parts for an object store.
    parts JSONB NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    -- Who announces the same bytes goes on where another stopped.
    CONSTRAINT upload_payload_key UNIQUE (sha256, size_bytes)
);

CREATE INDEX upload_expires ON upload (expires_at);

CREATE TABLE package (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL CONSTRAINT package_name_key UNIQUE,
    description TEXT NOT NULL DEFAULT '',
    -- The highest counter ever given, also to releases deleted since: a counter is never given twice.
    last_release_counter BIGINT NOT NULL DEFAULT 0,
    created_at TIMESTAMPTZ NOT NULL,
    revision BIGINT NOT NULL DEFAULT 1
);

CREATE TABLE release (
    id UUID PRIMARY KEY,
    package_id UUID NOT NULL REFERENCES package,
    version TEXT NOT NULL,
    release_counter BIGINT NOT NULL CHECK (release_counter > 0),
    hardware TEXT[] NOT NULL DEFAULT '{}',
    installer INSTALLER NOT NULL,
    payload_sha256 BYTEA NOT NULL REFERENCES payload,
    unpacked_size_bytes BIGINT NOT NULL DEFAULT 0 CHECK (unpacked_size_bytes >= 0),
    notes TEXT NOT NULL DEFAULT '',
    state RELEASE_STATE NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    creator TEXT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 1,
    CONSTRAINT release_version_key UNIQUE (package_id, version),
    CONSTRAINT release_counter_key UNIQUE (package_id, release_counter)
);

CREATE INDEX release_payload ON release (payload_sha256);
