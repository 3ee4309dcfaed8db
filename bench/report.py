"""Results as tables, on the terminal and in docs/benchmarks.md with its chart."""

from collections.abc import Sequence
from string import Template
from typing import Final

from bench import chart
from bench.measure import Measure, ratio, shown
from bench.measures import MEASURES, PARTS, SYSTEMS
from bench.processes import ROOT
from bench.results import Part, Results, newest, sizes
from bench.servers import AUDITPLANE, ORDINARY
from bench.targets import MILLION, TARGETS

PAGE: Final = ROOT / "docs" / "benchmarks.md"
CHART: Final = ROOT / "docs" / "benchmarks.svg"
TEMPLATE: Final = ROOT / "bench" / "page.md"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of a head and rows; columns after the first are set to the right."""
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            _padded(cell, width, column) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = ["-" * width if column == 0 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([lines[0], "| " + " | ".join(rule) + " |", *lines[1:]])


def _padded(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def part_table(results: Results, part: str) -> str:
    """The figures of a part, a row for each measure and a column for each system."""
    measures = [measure for measure in MEASURES if measure.part == part]
    systems = [
        system for system in SYSTEMS if any(results.figure(part, each.name, system) for each in measures)
    ]
    rows = [["", *(SYSTEMS[system] for system in systems)]]
    for measure in measures:
        cells = [_cell(results, measure, system) for system in systems]
        if any(cells):
            rows.append([f"{measure.label}, {measure.unit}", *cells])
    return table(rows)


def _cell(results: Results, measure: Measure, system: str) -> str:
    """A figure, and how many times as good this server's is."""
    value = results.value(measure.part, measure.name, system)
    if value is None:
        return ""
    ours = results.value(measure.part, measure.name, AUDITPLANE)
    if system == AUDITPLANE or ours is None:
        return shown(value)
    times = ratio(value, ours) if measure.less_is_better else ratio(ours, value)
    return shown(value) if times is None else f"{shown(value)} (×{shown(times)})"


def targets_table(results: Results, million: Results | None) -> str:
    """What was to reach at this size, and what was reached."""
    rows = [["", "to reach", "measured", "by the target", ""]]
    for target in TARGETS:
        if results.events >= target.events:
            value, remark = target.find(results, million)
            wanted = f"{'at least' if target.at_least is not None else 'below'} {shown(target.bound)}"
            label = f"{target.label} ({remark})" if remark else target.label
            if value is None:
                rows.append([label, wanted, "", "", "not measured"])
            else:
                verdict = "met" if target.is_met(value) else "fell short"
                rows.append([label, wanted, shown(value), shown(value / target.bound), verdict])
    return table(rows)


def trouble(part: Part) -> str:
    """What is missing from a part, in sentences; empty when nothing is."""
    absent = [f"{SYSTEMS[system]}: not here, {why}." for system, why in part.missing.items()]
    failed = [f"{SYSTEMS.get(system, 'The part')} failed: {why}." for system, why in part.failures.items()]
    return " ".join([*absent, *failed])


def tables(results: Results, parts: Sequence[str]) -> str:
    """Some parts of a run, each with its table."""
    texts = []
    for name in parts:
        part = results.parts[name]
        texts += [f"### {PARTS[name]}", part_table(results, name)]
        if troubles := trouble(part):
            texts.append(troubles)
    return "\n\n".join(texts)


def write_page() -> None:
    """docs/benchmarks.md and its chart, from the newest results of a million events and more.

    Smaller ones are shown only where there are no others.
    """
    known = sizes()
    large = [events for events in known if events >= MILLION] or known[-1:]
    found = [results for events in large if (results := newest(events))]
    if not found:
        return
    million = next((results for results in found if results.events == MILLION), None)
    texts = {
        "chart": _chart(found[0]),
        "client": next(iter(found[0].parts.values())).machine["client"],
        "figures": "\n\n".join(_section(results, million) for results in found),
    }
    PAGE.write_text(Template(TEMPLATE.read_text()).substitute(texts))


def _section(results: Results, million: Results | None) -> str:
    parts = [name for name in PARTS if name in results.parts]
    trial = "\n\nA trial run, too small for its figures to say anything." if results.events < MILLION else ""
    return "\n\n".join(
        [
            f"## {results.events:,} events{trial}",
            _machine(results, parts),
            "### What was to reach",
            targets_table(results, million),
            tables(results, parts),
        ]
    )


def _machine(results: Results, parts: Sequence[str]) -> str:
    """Where and when: a list of what all parts agree on, and a table of what they don't."""
    facts = {name: _facts(results.parts[name]) for name in parts}
    names = dict.fromkeys(fact for each in facts.values() for fact in each)
    values = {fact: [facts[name].get(fact, "") for name in parts] for fact in names}
    same = [f"- {fact}: {given[0]}" for fact, given in values.items() if len(set(given)) == 1]
    versions = {system: text for name in parts for system, text in results.parts[name].versions.items()}
    same.append(f"- versions: {'; '.join(dict.fromkeys(versions.values()))}")
    different = [fact for fact, given in values.items() if len(set(given)) > 1]
    rows = [
        ["", *different],
        *([PARTS[name], *(facts[name].get(fact, "") for fact in different)] for name in parts),
    ]
    return "\n".join(same) + (f"\n\n{table(rows)}" if different else "")


def _facts(part: Part) -> dict[str, str]:
    return {"at": part.at, "took, s": f"{part.seconds:.0f}", **part.machine}


def _chart(results: Results) -> str:
    """Draws the chart; returns the line that shows it."""
    panels = [
        _panel(results, "Recorded in durable batches of 1,000", "record_batches", "rate-1"),
        _panel(results, "The whole trail as CSV, newest first", "export", "csv"),
        _panel(results, "One event a request, 64 connections", "record_single", "rate-64"),
        _panel(results, "Space on disk", "disk", "bytes"),
        _panel(results, "The newest 100 of a user, p50", "query", "user-p50"),
        _panel(results, "The whole trail as CSV in zstd", "export", "zstd"),
    ]
    description = f"Figures of Auditplane and others, {results.events:,} events, {results.date}"
    CHART.write_text(chart.draw([panel for panel in panels if panel.bars], description))
    return f"![{description}]({CHART.name})"


def _panel(results: Results, title: str, part: str, name: str) -> chart.Panel:
    measure = next(each for each in MEASURES if (each.part, each.name) == (part, name))
    bars = [
        chart.Bar(_short(system), value, system == AUDITPLANE)
        for system in SYSTEMS
        if (value := results.value(part, name, system)) is not None
    ]
    unit = f"{measure.unit}, {'less' if measure.less_is_better else 'more'} is better"
    return chart.Panel(title, unit, bars)


def _short(system: str) -> str:
    return "FastAPI + SQLite" if system == ORDINARY else SYSTEMS[system]
