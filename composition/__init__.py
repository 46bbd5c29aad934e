"""Between the settings and the tree: what `supervisor.py` needs to declare it, run it and look after it."""
