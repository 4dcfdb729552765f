-- Who may run the fleet, and the record of what happened.

CREATE TYPE role AS ENUM ('viewer', 'publisher', 'deployer', 'admin');

CREATE TABLE api_token (
    id UUID PRIMARY KEY,
    display_name TEXT NOT NULL CHECK (display_name <> ''),
    role ROLE NOT NULL,
    secret_sha256 BYTEA NOT NULL CHECK (length(secret_sha256) = 32),
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ,
    last_used_at TIMESTAMPTZ,
    revoked_at TIMESTAMPTZ
);

CREATE TABLE event (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Identities are handed out before commits happen, so their order is not the order in which events become visible.
    -- A watcher therefore reads in the order (transaction, id), and only up to the oldest transaction still running.
    transaction XID8 NOT NULL DEFAULT pg_current_xact_id(),
    at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    kind TEXT NOT NULL,
    -- 'apiTokens/…', 'devices/…' or 'server'
    actor TEXT NOT NULL,
    actor_display_name TEXT NOT NULL DEFAULT '',
    -- The resource it happened to, by its API name.
    subject TEXT NOT NULL,
    -- No foreign keys: the record outlives what it speaks of.
    device_id UUID,
    rollout_id UUID,
    details JSONB NOT NULL DEFAULT '{}',
    request_id TEXT NOT NULL DEFAULT ''
);

CREATE INDEX event_order ON event (transaction, id);
CREATE INDEX event_device ON event (device_id, id) WHERE device_id IS NOT NULL;
CREATE INDEX event_rollout ON event (rollout_id, id) WHERE rollout_id IS NOT NULL;

CREATE FUNCTION refuse_change() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$;

CREATE TRIGGER event_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
