"""A real Redis for the test session."""
