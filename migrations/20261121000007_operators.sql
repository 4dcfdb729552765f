-- Where requests came from, the seals of the record, and what roles are limited to.

-- Text, because an address is shown and never computed with. Empty when no request caused the event.
ALTER TABLE event ADD COLUMN source_address TEXT NOT NULL DEFAULT '';

-- The chain over the record: each seal covers the events after the last one of the seal before.
CREATE TABLE event_seal (
    -- From 1 without gaps: two seals with one number would be two chains.
    number BIGINT PRIMARY KEY CHECK (number > 0),
    -- The cursor of the last event covered.
    last_transaction XID8 NOT NULL,
    last_id BIGINT NOT NULL,
    event_count INTEGER NOT NULL CHECK (event_count > 0),
    previous_sha256 BYTEA NOT NULL CHECK (length(previous_sha256) = 32),
    sha256 BYTEA NOT NULL CHECK (length(sha256) = 32),
    at TIMESTAMPTZ NOT NULL
);

CREATE TRIGGER event_seal_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON event_seal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE api_token
    ADD COLUMN device_selector TEXT,
    ADD COLUMN package_prefix TEXT,
    ADD CONSTRAINT api_token_admin_unlimited
        CHECK (role <> 'admin' OR (device_selector IS NULL AND package_prefix IS NULL));
