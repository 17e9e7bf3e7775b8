"""The paper's tables: networks trained, scored and compared by one protocol."""
