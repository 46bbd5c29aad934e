"""A real PostgreSQL for the test session."""
