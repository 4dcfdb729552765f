-- When a deployment entered the state it is in: how long its phases take is measured from there. NULL where that was before
-- this column was.
ALTER TABLE deployment ADD COLUMN entered_at TIMESTAMPTZ;
