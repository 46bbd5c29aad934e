"""HTTP/1.1 on a connection of our own: one task a connection, llhttp to parse, no task or channel a request."""
