"""The space that the trail takes, after a clean stop."""

from bench.run import Run


def run(run: Run) -> None:
    """Asks each system."""
    for trail in run.filled(run.trails()):
        with run.attempt(trail.name):
            run.add("bytes", trail.name, trail.disk_bytes() / run.dataset.events)
