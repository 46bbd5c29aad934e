"""A mutation run over the actor runtime: `python -m tools.mutants`; docs/mutants.md says how to read it."""
