"""A real Kafka for the test session."""
