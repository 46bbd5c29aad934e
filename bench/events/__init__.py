"""Programs that measure the event side: consumers, the embedded log."""
