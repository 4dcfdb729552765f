-- The server's own keys, and the signed metadata that devices trust.

-- Private keys are sealed with AES-256-GCM under a key that the database never sees, with the name as associated data.
CREATE TABLE server_key (
    name TEXT PRIMARY KEY,
    -- SubjectPublicKeyInfo, DER; empty for a key that has no public part.
    public_key BYTEA NOT NULL,
    sealed BYTEA NOT NULL,
    -- Tells which key-encryption key sealed it, and nothing of that key.
    kek_id TEXT NOT NULL,
    -- The self-signed certificate of the key, DER. Only the certificate authority has one.
    certificate BYTEA,
    created_at TIMESTAMPTZ NOT NULL
);

CREATE TYPE trust_repository AS ENUM ('image', 'director');

-- One row for each signed document that is the same for the whole fleet. All roots stay, of the other roles the last few.
CREATE TABLE trust_metadata (
    repository TRUST_REPOSITORY NOT NULL,
    role TEXT NOT NULL,
    version BIGINT NOT NULL CHECK (version > 0),
    document BYTEA NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (repository, role, version)
);

-- What the server last signed for each device: made when the device asks, so many a device has none.
CREATE TABLE director_document (
    device_id UUID PRIMARY KEY REFERENCES device ON DELETE CASCADE,
    -- The version of all three documents. Never falls.
    version BIGINT NOT NULL CHECK (version > 0),
    -- Of what was signed and by which root: tells whether the documents still say what they should.
    content_sha256 BYTEA NOT NULL CHECK (length(content_sha256) = 32),
    timestamp_document BYTEA NOT NULL,
    snapshot_document BYTEA NOT NULL,
    targets_document BYTEA NOT NULL,
    signed_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
);

-- When a signed targets document came to list the release; NULL while none does. Only a signed release may be assigned.
ALTER TABLE release ADD COLUMN signed_at TIMESTAMPTZ;
