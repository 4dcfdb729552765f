UPDATE deployment SET entered_at = '2026-01-05T00:00:00Z' WHERE state = 'downloading';
