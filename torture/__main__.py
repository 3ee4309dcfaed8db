"""`python -m torture`: all attacks, or some of them, and a table of what came of them."""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from torture import abuse, faults, inputs, kills, powercut, refusals, rot, schema
from torture.parsers import parsers

T = TypeVar("T")

CUTS_IN_A_SESSION: Final = 1_000
PROGRESS_SECONDS: Final = 60.0
WORKERS: Final = (1, 3)
ABUSED_EVENTS: Final = 14_336

_SCENARIOS: Final = [scenario.name for scenario in abuse.SCENARIOS]


def main() -> int:
    """Attacks; returns 1 when something was lost."""
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"some of {', '.join(_PARTS)}; all by default"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same attacks as another time")
    parser.add_argument("--cuts", type=int, default=20_000)
    parser.add_argument(
        "--faults", type=int, default=6_500, help="of a session; all but those of most writes by default"
    )
    parser.add_argument(
        "--calls", nargs="*", default=faults.CALLS, choices=faults.CALLS, help="that fail; all by default"
    )
    parser.add_argument(
        "--flips", type=int, default=5_000, help="of logs; a fifth of it of write-ahead logs, and of keys"
    )
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for each parser; fewer for slow ones")
    parser.add_argument("--examples", type=int, default=300, help="for each operation of the API")
    parser.add_argument("--parser", action="append", help="one of those that get input; all by default")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="parsers at a time")
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--refusals", type=int, default=4_000, help="of each kind of key that does not work")
    parser.add_argument(
        "--scenarios",
        nargs="*",
        default=_SCENARIOS,
        choices=_SCENARIOS,
        help="of the part abuse; all by default",
    )
    parser.add_argument("--rounds", type=int, help="of each scenario of the part abuse")
    given = parser.parse_args()
    if unknown := set(given.parts) - _PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(_PARTS)}")
    print(
        f"seed {given.seed}\n\n| Attack | Tried | Wrong | Seconds |\n| --- | --- | ---: | ---: |", flush=True
    )
    return max(_PARTS[part](given) for part in given.parts or _PARTS)


def _row(what: str, tried: str, problems: list[str], began: float) -> int:
    print(f"| {what} | {tried} | {len(problems)} | {time.monotonic() - began:,.0f} |", flush=True)
    _tell(problems)
    return 1 if problems else 0


def _tell(problems: list[str]) -> None:
    for problem, count in Counter(problems).most_common():
        print(f"{count} times: {problem}", file=sys.stderr, flush=True)


def _with_progress(what: str, works: Iterable[T], count: int) -> Iterator[T]:
    """The same, and now and then how far it has come, as each attack takes hours.

    Where each is done as it is asked for, Ctrl-C ends it early.
    """
    told = time.monotonic()
    try:
        for done, work in enumerate(works):
            if time.monotonic() > told + PROGRESS_SECONDS:
                told = time.monotonic()
                print(f"{what}: {done:,} of {count:,}", file=sys.stderr, flush=True)
            yield work
    except KeyboardInterrupt:
        print(f"{what}: ended early", file=sys.stderr, flush=True)


def _cut(given: argparse.Namespace) -> int:
    began, states, problems, sessions = time.monotonic(), 0, [], 0
    lefts = range(given.cuts, 0, -CUTS_IN_A_SESSION)
    for left in _with_progress("power cut, sessions", lefts, len(lefts)):
        seed = given.seed + sessions
        found, failures = powercut.cuts(seed, min(left, CUTS_IN_A_SESSION))
        states, sessions = states + found, sessions + 1
        problems += [f"session {seed}, cut {each.number}: {each.problem}" for each in failures]
    tried = f"{given.cuts:,} cuts in {sessions} sessions, {states:,} different disks"
    return _row("power cut", tried, problems, began)


def _fail(given: argparse.Namespace) -> int:
    began, problems, tried, hit = time.monotonic(), [], 0, 0
    wanted = faults.faults(given.seed, given.faults, given.calls)
    for result in _with_progress("failing disk", faults.tried(wanted), len(wanted)):
        tried += 1
        hit += result.steps_failed > 0
        problems += (
            [f"{result.fault}, session {result.fault.seed}: {result.problem}"] if result.problem else []
        )
    return _row("failing disk", f"{tried:,} faults, {hit:,} of which some step felt", problems, began)


def _rot(given: argparse.Namespace) -> int:
    worst = 0
    for what, attack, flips in (
        ("logs", rot.tried, given.flips),
        ("write-ahead logs", rot.tried_behind, given.flips // 5),
        ("keys", rot.tried_keys, given.flips // 5),
    ):
        began, outcome = time.monotonic(), attack(given.seed, flips)
        tried = f"{outcome.flips:,} flipped bits, {outcome.found:,} found"
        worst |= _row(f"bit rot, {what}", tried, outcome.problems, began)
    return worst


def _kill(given: argparse.Namespace) -> int:
    worst = 0
    for workers in WORKERS:
        began, problems, outcome = time.monotonic(), [], kills.Outcome()
        try:
            kills.try_some(given.kills // len(WORKERS), workers, given.seed, outcome)
        except AssertionError as error:
            problems = [str(error)]
        tried = (
            f"{outcome.kills:,} kills, {outcome.acknowledged:,} events acknowledged, "
            f"{outcome.exported:,} exports, {outcome.purged:,} events purged"
        )
        worst |= _row(f"kill, {workers} workers", tried, problems, began)
    return worst


def _abuse(given: argparse.Namespace) -> int:
    print(f"\n{abuse.header()}", flush=True)
    worst = 0
    with tempfile.TemporaryDirectory(prefix="auditplane-abuse-") as name:
        base = Path(name) / "data"
        keys = abuse.made(base, ABUSED_EVENTS)
        for scenario in abuse.SCENARIOS:
            if scenario.name in given.scenarios:
                rounds = min(scenario.rounds, given.rounds or scenario.rounds)
                result = abuse.tried(dataclasses.replace(scenario, rounds=rounds), base, keys)
                print(abuse.row(scenario, result), flush=True)
                _tell([f"{scenario.name}: {problem}" for problem in result.problems])
                worst |= bool(result.problems)
    return worst


def _feed(given: argparse.Namespace) -> int:
    worst, how = 0, "atheris" if inputs.has_atheris() else "chance"
    with parsers() as known:
        names = given.parser or list(known)
    for name, found in inputs.tried(names, given.inputs, given.seed, given.processes):
        tried = f"{found.tried:,} inputs by {how}, {found.taken:,} taken, {found.refused:,} refused"
        worst |= _row(f"input: {name}", tried, found.problems, time.monotonic() - found.seconds)
    return worst


def _ask(given: argparse.Namespace) -> int:
    worst, began = 0, time.monotonic()
    for document, problem in schema.tried(given.examples, given.seed):
        tried = f"{document}, all phases, up to {given.examples:,} examples of each operation"
        worst |= _row("schemathesis", tried, [problem] if problem else [], began)
        began = time.monotonic()
    return worst


def _refuse(given: argparse.Namespace) -> int:
    began, outcome = time.monotonic(), refusals.tried(given.refusals)
    medians = ", ".join(f"{kind} {us:.0f} us" for kind, us in outcome.medians().items())
    return _row("refusals", f"{given.refusals:,} of each kind of key: {medians}", outcome.problems, began)


_PARTS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "cuts": _cut,
    "faults": _fail,
    "rot": _rot,
    "inputs": _feed,
    "schema": _ask,
    "kills": _kill,
    "refusals": _refuse,
    "abuse": _abuse,
}

if __name__ == "__main__":
    sys.exit(main())
