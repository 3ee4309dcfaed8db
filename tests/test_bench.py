import csv
import io
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from bench import chart, dataset, report
from bench.client import Connection, seconds_to_drain
from bench.dataset import Dataset
from bench.measure import Figure, last_rate, percentile, rate, ratio, shown, take_turns
from bench.processes import Failed
from bench.results import Part, Results
from bench.servers import AUDITPLANE, ORDINARY, Ordinary
from bench.targets import TARGETS, Target

EVENTS = 2_000

# One worker starts the ordinary server once.


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return dataset.load(tmp_path_factory.mktemp("dataset"), EVENTS)


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ordinary]:
    folder = tmp_path_factory.mktemp("ordinary")
    server = Ordinary(folder / "store", folder / "ordinary.log", 1)
    server.start()
    yield server
    server.stop()
    assert {path.name for path in server.folder.iterdir()} == {"events.db"}


# The dataset.


def test_the_events_are_the_same_everywhere(events: Dataset) -> None:
    """A size always gives the same bytes, or figures of two machines could not be compared."""
    assert (
        sha256("".join(dataset.lines(1_000)).encode()).hexdigest()
        == "f61902eaf9b472aeae8c93c37542e00f6fd11ea3c6ba0edc0f4c875a0312778e"
    )
    assert b"".join(events.ndjson(range(events.batches))).decode() == "".join(dataset.lines(EVENTS))


def test_batches_are_the_events_in_order(events: Dataset) -> None:
    """Cut into bodies, no event is lost, and each is one that a recorder would send."""
    assert events.events == EVENTS
    bodies = [json.loads(body) for body in events.arrays(range(events.batches))]
    assert [len(body) for body in bodies] == [dataset.BATCH_EVENTS] * events.batches
    sent = [event for body in bodies for event in body]
    assert sent == [json.loads(line) for line in dataset.lines(EVENTS)]
    assert all(set(event) <= set(dataset.MEMBERS) for event in sent)
    assert not any({"id", "timestamp"} & set(event) for event in sent)


def test_what_is_drawn_is_the_same_for_a_seed(events: Dataset) -> None:
    """Queries look for values of events, the same ones in each run."""
    drawn = events.sample(50, 1)
    assert drawn == events.sample(50, 1) != events.sample(50, 2)
    sent = [json.loads(line) for line in dataset.lines(EVENTS)]
    assert all(event in sent for event in drawn)
    changed = events.sample(5, 3, dataset.has_change)
    assert all(event["description"].endswith(f"CHG-{dataset.change_of(event)}") for event in changed)


def test_a_set_that_was_broken_off_is_made_again(tmp_path: Path) -> None:
    """What a killed run left half made is not taken for a set."""
    whole = dataset.load(tmp_path, 1_000)
    for path in tmp_path.iterdir():
        path.unlink() if path.suffix == ".starts" else path.write_bytes(b"{")
    assert list(dataset.load(tmp_path, 1_000).ndjson(range(1))) == ["".join(dataset.lines(1_000)).encode()]
    assert whole.events == 1_000


# The ordinary server.


def test_the_ordinary_server_keeps_what_it_is_sent(ordinary: Ordinary, events: Dataset) -> None:
    """Batches and single events come out of its lists and its CSV as they went in, newest first."""
    marks = ordinary.record(events, range(events.batches), 2)
    assert len(marks) == events.batches
    single = {"resourceName": "n", "resourceKind": "Agent", "action": "Created", "user": "single, user"}
    with Connection(ordinary.target.port) as connection:
        connection.ask(ordinary.target.post(ordinary.single_path, json.dumps(single).encode()))
    assert ordinary.stored() == EVENTS + 1

    rows = list(csv.DictReader(io.StringIO(ordinary.get(ordinary.csv_path).decode())))
    assert len(rows) == EVENTS + 1
    assert rows[0]["user"] == "single, user"
    assert [row["timestamp"] for row in rows] == sorted((row["timestamp"] for row in rows), reverse=True)
    sent = [json.loads(line) for line in dataset.lines(EVENTS)]
    came = [{name: row[name] for name in dataset.MEMBERS if row[name]} for row in rows[1:]]
    assert sorted(map(str, map(sorted, (event.items() for event in came)))) == sorted(
        map(str, map(sorted, (event.items() for event in sent)))
    )

    wanted = next(event for event in sent if "configuration" in event)
    for filters, member in (
        ({"user": wanted["user"]}, "user"),
        ({"configuration-name": wanted["configuration"]}, "configuration"),
        ({"resource-kind": wanted["resourceKind"]}, "resourceKind"),
        ({"action": wanted["action"]}, "action"),
    ):
        path = ordinary.newest({**filters, "limit": "10000"})
        assert path is not None
        found = json.loads(ordinary.get(path))
        assert [event["id"] for event in found] == [
            row["id"] for row in rows if row[member] == wanted[member]
        ]
    middle = rows[EVENTS // 2]["timestamp"]
    path = ordinary.newest({"max-date": middle, "limit": "1"})
    assert path is not None
    assert json.loads(ordinary.get(path))[0]["timestamp"] == middle.removesuffix("Z")
    assert ordinary.newest({"q": "word"}) is None


def test_what_the_ordinary_server_refuses_is_a_failure(ordinary: Ordinary) -> None:
    """A benchmark of refused requests would be a fast one."""
    with Connection(ordinary.target.port) as connection, pytest.raises(Failed, match="422"):
        connection.ask(ordinary.target.post(ordinary.single_path, b"{}"))


# The client.


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_a_short_answer_is_a_failure(answer: bytes) -> None:
    """An answer that is broken off, or an error, is not taken for a fast one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            for _ in range(2):
                with listener.accept()[0] as accepted:
                    accepted.recv(1024)
                    accepted.sendall(answer)

        served = threading.Thread(target=serve)
        served.start()
        with pytest.raises(Failed):
            seconds_to_drain(port, b"GET / HTTP/1.1\r\n\r\n")
        with Connection(port) as connection, pytest.raises(Failed):
            connection.ask(b"GET / HTTP/1.1\r\n\r\n")
        served.join()


# Statistics.


def test_percentiles_are_values_that_were_measured() -> None:
    """The nearest rank: of 300, p99 is the 297th."""
    values = list(range(300, 0, -1))
    assert [percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 150, 297, 300]
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_rates_come_from_when_steps_ended() -> None:
    """Steps of two connections may end in another order than they began."""
    marks = [1.0, 3.0, 2.0, 4.0]
    assert rate(marks, 1_000) == 1_000
    assert last_rate(marks, 2, 1_000) == 1_000
    assert last_rate([1.0, 2.0, 6.0], 1, 1_000) == 250
    assert last_rate(marks, 9, 1_000) == 1_000


def test_a_ratio_needs_both_figures() -> None:
    """What was not measured has no ratio."""
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(None, 2.0) is ratio(3.0, None) is ratio(3.0, 0.0) is None


def test_shots_take_turns_and_a_failure_stops_only_its_own() -> None:
    """Noise hits all alike; a long shot is not repeated; a broken system does not end the run."""
    order: list[str] = []
    failures: list[str] = []

    def shot(name: str, seconds: float) -> float:
        order.append(name)
        if name == "broken":
            raise Failed("it is")
        return seconds

    shots = {"one": 1.0, "broken": 1.0, "long": 1_000.0, "short": 0.5}
    taken = take_turns(
        {name: partial(shot, name, seconds) for name, seconds in shots.items()},
        3,
        lambda name, error: failures.append(f"{name}: {error}"),
    )
    assert order == ["one", "broken", "long", "short", "short", *2 * ["one", "short", "short"]]
    assert taken == {"one": [1.0] * 3, "long": [1_000.0], "short": [0.5] * 3}
    assert failures == ["broken: it is"]


def test_figures_show_three_digits() -> None:
    """Nobody reads more, and no more can be trusted."""
    assert [shown(value) for value in (0.123, 1.0, 12.34, 123.4, 1_234.0, 67_891.0, 6_712_345.0)] == [
        "0.12", "1.00", "12.3", "123", "1,230", "67,900", "6,710,000",
    ]  # fmt: skip


# The report.


def results(**figures: float) -> Results:
    """Results of one part, from figures named SYSTEM__MEASURE."""
    made = []
    for name, value in figures.items():
        system, _, measure = name.partition("__")
        made.append(Figure("record_batches", measure.replace("_", "-"), system, (value, value, 1e9)))
    now = datetime.now(UTC).isoformat()
    return Results("2026-01-01", 1_000_000, {"record_batches": Part(now, 1.0, {}, {}, made, {}, {})})


def verdict(found: Results, target: Target) -> str:
    """The line of a target."""
    return next(
        line
        for line in report.targets_table(found, None).splitlines()
        if line.startswith(f"| {target.label}")
    )


def test_the_tables_say_what_was_reached_and_what_was_not() -> None:
    """The median is what counts, and a figure that falls short is called that."""
    found = results(auditplane__rate_1=30_000, auditplane__rate_2=50_000, ordinary__rate_1=40_000)
    rate_target, times_target, *_ = TARGETS
    assert "met" in verdict(found, rate_target)
    assert "1.25" in verdict(found, times_target)
    assert "fell short" in verdict(found, times_target)
    assert "not measured" in verdict(found, TARGETS[-1])
    table = report.part_table(found, "record_batches")
    assert "30,000" in table
    assert "40,000 (×0.75)" in table


def test_targets_have_a_bound_on_one_side() -> None:
    """A bound that is reached exactly: enough for a least, too much for a most."""
    for target in TARGETS:
        assert (target.at_least is None) != (target.below is None)
        assert target.is_met(target.bound) == (target.at_least is not None)


def test_the_chart_is_drawn_from_the_figures() -> None:
    """The longest bar fills its place, and signs of markup stay text."""
    bars = [
        chart.Bar(AUDITPLANE, 100.0, True),
        chart.Bar("<&>", 50.0, False),
        chart.Bar(ORDINARY, 0.0, False),
    ]
    drawn = chart.draw([chart.Panel("a", "b", bars)], "c")
    assert drawn.count("<rect") == 3
    assert "&lt;&amp;&gt;" in drawn
    assert "prefers-color-scheme: dark" in drawn
