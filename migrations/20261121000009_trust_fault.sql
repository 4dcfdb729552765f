-- Why a device did not believe what the server last sent it, as it said when it checked in. None when it did.

ALTER TABLE device
    ADD COLUMN trust_fault TEXT CHECK (trust_fault IN (
        'arbitrary', 'rollback', 'freeze', 'mix_and_match', 'other_device', 'hardware', 'disagreement', 'endless', 'store'
    ));
