"""The benchmarks: this server beside others, on one machine, in one run, on the same events.

`make bench` runs them, and writes docs/benchmarks.md. No test looks at a time.
"""
