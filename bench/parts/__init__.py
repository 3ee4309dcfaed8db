"""The parts of a run, one a file. Each takes the run, and adds figures to it."""
