UPDATE device
SET public_key = decode('3059301306072a8648ce3d020106082a8648ce3d030107034200' || '04' || repeat('41', 64), 'hex'),
    certificate_expires_at = '2026-01-09T00:00:00Z'
WHERE id = '01939000-0000-7000-8000-000000000021';
UPDATE enroll_token SET image_root_version = 2;
