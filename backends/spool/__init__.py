"""A queue of records on disk, for the time that the bus is away."""
