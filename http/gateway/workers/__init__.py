"""Several processes behind one set of sockets: a parent that looks after them, each an actor of its tree."""
