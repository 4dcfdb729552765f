UPDATE device SET trust_fault = 'rollback' WHERE id = '01939000-0000-7000-8000-000000000023';
