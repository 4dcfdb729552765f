-- A device is known by its key.

ALTER TABLE device
    ALTER COLUMN credential_sha256 DROP NOT NULL,
    -- SubjectPublicKeyInfo of an ECDSA P-256 key, DER. A machine that enrols again with the same key is the same device.
    -- A device from before keys has none, and nobody can call as it: the machine has to enrol again.
    ADD COLUMN public_key BYTEA CHECK (length(public_key) = 91),
    ADD COLUMN key_sha256 BYTEA GENERATED ALWAYS AS (sha256(public_key)) STORED CONSTRAINT device_key_key UNIQUE,
    ADD COLUMN certificate_expires_at TIMESTAMPTZ;

-- The pin of an enrolment string is over the roots of its day, and devices are shown these.
ALTER TABLE enroll_token
    ADD COLUMN image_root_version BIGINT NOT NULL DEFAULT 1 CHECK (image_root_version > 0),
    ADD COLUMN director_root_version BIGINT NOT NULL DEFAULT 1 CHECK (director_root_version > 0);

-- Others, pending or accepted, that say they are the same machine and have another key.
CREATE FUNCTION identity_conflicts(DEVICE) RETURNS UUID[] LANGUAGE SQL STABLE AS $$
    SELECT ARRAY(
        SELECT other.id
        FROM device AS other
        WHERE $1.hardware_id <> '' AND $1.state IN ('pending', 'accepted')
            AND other.hardware_id = $1.hardware_id AND other.hardware_id <> ''
            AND other.id <> $1.id AND other.state IN ('pending', 'accepted')
        ORDER BY other.id
    )
$$;
