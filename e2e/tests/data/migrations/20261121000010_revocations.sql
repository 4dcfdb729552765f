-- The trigger notes it.
UPDATE device SET state = 'decommissioned' WHERE id = '01939000-0000-7000-8000-000000000023';
