"""Programs of the runtime's rows: one a side, each doing the same pieces of work with its own means."""
