-- Devices that replicas must no longer let in, so that each replica hears of them although a notification was lost. Noted by
-- triggers in the transaction of the change itself: nobody who changes a device can forget it.

CREATE TABLE device_revocation (
    -- Read in the order in which transactions end, as events are.
    transaction XID8 NOT NULL DEFAULT pg_current_xact_id(),
    -- No foreign key: a deleted device is one of them.
    device_id UUID NOT NULL,
    at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (transaction, device_id)
);

CREATE FUNCTION note_revocation() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO device_revocation (device_id) VALUES (OLD.id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE TRIGGER device_taken_out AFTER UPDATE OF state, public_key ON device
    FOR EACH ROW
    WHEN (
        OLD.state = 'accepted' AND NEW.state <> 'accepted' OR OLD.public_key IS DISTINCT FROM NEW.public_key
    )
    EXECUTE FUNCTION note_revocation();

CREATE TRIGGER device_deleted AFTER DELETE ON device
    FOR EACH ROW
    EXECUTE FUNCTION note_revocation();
