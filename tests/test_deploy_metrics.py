import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec
import promql_parser
import pytest

from server import Server
from test_docs import anchor, headings

ROOT: Final = Path(__file__).resolve().parents[1]
ALERTS: Final = ROOT / "deploy" / "alerts.yml"
PAGE: Final = (ROOT / "docs" / "operating.md").read_text()
RULES: Final[list[dict[str, Any]]] = msgspec.yaml.decode(ALERTS.read_bytes())["groups"][0]["rules"]
DASHBOARD: Final[dict[str, Any]] = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
COLUMNS: Final = 24
UNITS: Final = {"none", "short", "s", "bytes", "reqps", "ops"}
# Grafana puts values in their place.
VARIABLES: Final = {"$__rate_interval": "5m", "$job": "auditplane", "$instance": ".*"}


def queries() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard, with the title of its panel."""
    for panel in PANELS:
        for target in panel.get("targets", ()):
            text: str = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            yield panel["title"], text


QUERIES: Final = [*((rule["alert"], rule["expr"]) for rule in RULES), *queries()]


@pytest.fixture(scope="module")
def exposed(server: Server) -> str:
    """What a server exposes that was asked for little."""
    httpx2.get(f"{server.url}/nowhere")
    return httpx2.get(f"{server.url}/metrics").text


@pytest.mark.parametrize(("where", "query"), QUERIES)
def test_every_query_parses_and_asks_for_what_a_server_exposes(where: str, query: str, exposed: str) -> None:
    """Names of metrics and labels: a misspelt one would never alarm, and say nothing of it."""
    promql_parser.parse(query)
    names = set(re.findall(r"\bauditplane_\w+", query))
    assert names or where == "AuditplaneDown"
    series = set(re.findall(r"^(auditplane_\w+)", exposed, re.MULTILINE))
    assert names <= series
    labels = set(re.findall(r'(\w+)="', exposed)) | {"instance", "job"}
    used = re.findall(r'(\w+) ?(?:=~|!=|!~|=)"', query)
    used += [name for by in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for name in re.split(r", *", by)]
    assert set(used) <= labels


def test_every_alert_says_what_to_do_and_where_it_is_explained() -> None:
    """Each has its row in the table of docs/operating.md, and a section there; none has two."""
    anchors = set(map(anchor, headings(PAGE)))
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    assert re.findall(r"^\| `(Auditplane\w+)` \|", PAGE, re.MULTILINE) == names
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        told = rule["annotations"]
        assert told.keys() == {"summary", "action", "runbook"}
        assert all(told[name].endswith(".") for name in ("summary", "action"))
        page, _, section = told["runbook"].partition("#")
        assert page == "docs/operating.md"
        assert section in anchors, told["runbook"]
        row = re.search(rf"^\| `{rule['alert']}` \| .*\]\(#({section})\)", PAGE, re.MULTILINE)
        assert row, (rule["alert"], section)


def test_every_metric_is_on_the_dashboard() -> None:
    """Whoever exposes a metric shows it, too."""
    shown = set(re.findall(r"\bauditplane_\w+", " ".join(query for _, query in queries())))
    told = re.findall(r"^\| `(auditplane_\w+)` \|", PAGE, re.MULTILINE)
    assert {name for name in told if not any(query.startswith(name) for query in shown)} == set()


def test_panels_explain_themselves_and_do_not_overlap() -> None:
    """Titles, descriptions and units are there; each place of the grid belongs to one panel."""
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= COLUMNS
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
            assert panel["targets"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert {each["name"] for each in DASHBOARD["templating"]["list"]} == {"datasource", "job", "instance"}
    assert DASHBOARD["uid"] == "auditplane"


# By promtool, where it is installed: Debian's package of it brings a server that starts by itself, so nothing
# installs it for the tests.

PROMTOOL: Final = shutil.which("promtool")
# What a sound server exposes, over two days, one sample a minute.
SOUND: Final = {
    'up{job="auditplane",instance="a"}': "1x3100",
    'auditplane_healthy{instance="a"}': "1x3100",
    'auditplane_refused_total{instance="a",reason="StorageFull"}': "0x3100",
    'auditplane_refused_total{instance="a",reason="Unavailable"}': "0x3100",
    'auditplane_events_waiting{instance="a"}': "10x3100",
    'auditplane_workers{instance="a"}': "2x3100",
    'auditplane_commit_seconds_bucket{instance="a",le="0.01"}': "0+100x3100",
    'auditplane_commit_seconds_bucket{instance="a",le="1.0"}': "0+100x3100",
    'auditplane_commit_seconds_bucket{instance="a",le="+Inf"}': "0+100x3100",
    'auditplane_request_seconds_bucket{instance="a",route="/",method="GET",le="0.1"}': "0+9x3100",
    'auditplane_request_seconds_bucket{instance="a",route="/",method="GET",le="10.0"}': "0+9x3100",
    'auditplane_request_seconds_bucket{instance="a",route="/",method="GET",le="+Inf"}': "0+9x3100",
    'auditplane_keys_tried_total{instance="a"}': "0+2x3100",
    'auditplane_disk_free_bytes{instance="a"}': "50000000000-1000x3100",
    'auditplane_disk_size_bytes{instance="a"}': "100000000000x3100",
    'auditplane_upkeep_failing_accounts{instance="a"}': "0x3100",
    'auditplane_upkeep_timestamp_seconds{instance="a"}': "0+60x3100",
    'auditplane_unsealed_events{instance="a"}': "5000x3100",
    'auditplane_accounts{instance="a"}': "3x3100",
    'auditplane_wal_bytes{instance="a"}': "4000000x3100",
    'auditplane_purge_lag_seconds{instance="a"}': "1800x3100",
    'auditplane_checkpoint_lag_seconds{instance="a"}': "80000x3100",
    'auditplane_backup_timestamp_seconds{instance="a"}': "0x3100",
    'auditplane_tls_certificate_expiry_timestamp_seconds{instance="a"}': "0x3100",
    'auditplane_workers_started_total{instance="a"}': "2x3100",
    'auditplane_start_timestamp_seconds{instance="a"}': "0x3100",
    'auditplane_open_files{instance="a"}': "90x3100",
    'auditplane_open_files_limit{instance="a"}': "20000x3100",
    'auditplane_connections{instance="a"}': "300x3100",
    'auditplane_connections_limit{instance="a"}': "32000x3100",
    'auditplane_memory_bytes{instance="a"}': "400000000x3100",
    'auditplane_log_lines_left_out_total{instance="a"}': "0x3100",
}
LAST: Final = 3_000
"""The minute at which it is looked."""

# What makes each alert fire, in place of what is sound.
TROUBLE: Final[dict[str, dict[str, str]]] = {
    "AuditplaneDown": {"up": "1x1500 0x1600"},
    "AuditplaneCannotRecord": {"auditplane_healthy": "1x1500 0x1600"},
    "AuditplaneFails": {'auditplane_refused_total{instance="a",reason="StorageFull"': "0x2998 1x102"},
    "AuditplaneOverloaded": {'auditplane_refused_total{instance="a",reason="Unavailable"': "0+30x3100"},
    "AuditplaneEventsWait": {"auditplane_events_waiting": "60000x3100"},
    "AuditplaneCommitsSlow": {'auditplane_commit_seconds_bucket{instance="a",le="0.01"': "0+50x3100"},
    "AuditplaneAnswersSlow": {
        'auditplane_request_seconds_bucket{instance="a",route="/",method="GET",le="0.1"': "0+5x3100"
    },
    "AuditplaneDiskAlmostFull": {"auditplane_disk_free_bytes": "4000000000x3100"},
    "AuditplaneDiskFillsUp": {"auditplane_disk_free_bytes": "42000000000-10000000x3100"},
    "AuditplaneUpkeepFails": {"auditplane_upkeep_failing_accounts": "0x1500 2x1600"},
    "AuditplaneUpkeepStands": {"auditplane_upkeep_timestamp_seconds": "60000x3100"},
    "AuditplaneUpkeepLags": {"auditplane_unsealed_events": "200000x3100"},
    "AuditplaneWalGrows": {"auditplane_wal_bytes": "2000000000x3100"},
    "AuditplanePurgeLags": {"auditplane_purge_lag_seconds": "9000x3100"},
    "AuditplaneCheckpointOld": {"auditplane_checkpoint_lag_seconds": "0+60x3100"},
    "AuditplaneBackupOld": {"auditplane_backup_timestamp_seconds": "60x3100"},
    "AuditplaneCertificateEnds": {"auditplane_tls_certificate_expiry_timestamp_seconds": "500000x3100"},
    "AuditplaneWorkersRestart": {"auditplane_workers_started_total": "2x2995 3x105"},
    "AuditplaneOpenFilesMany": {"auditplane_open_files": "19000x3100"},
    "AuditplaneConnectionsMany": {"auditplane_connections": "26000x3100"},
    "AuditplaneMemoryMuch": {"auditplane_memory_bytes": "3000000000x3100"},
    "AuditplaneKeysTried": {"auditplane_keys_tried_total": "0x2998 150x102"},  # between two samples
    "AuditplaneLogLinesLost": {"auditplane_log_lines_left_out_total": "0x2995 7x105"},
}


def series_with(trouble: dict[str, str]) -> list[dict[str, str]]:
    """The series of a sound server, but for some."""
    found = []
    for name, values in SOUND.items():
        instead = [text for start, text in trouble.items() if name.startswith((f"{start}{{", f"{start}}}"))]
        found.append({"series": name, "values": instead[0] if instead else values})
    assert sum(item["values"] not in SOUND.values() for item in found) <= len(trouble)
    return found


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool, of Prometheus")
def test_each_alert_fires_when_it_should_and_a_sound_server_causes_none(tmp_path: Path) -> None:
    """Series that are invented, evaluated by Prometheus itself."""
    assert PROMTOOL is not None
    assert set(TROUBLE) == {rule["alert"] for rule in RULES}
    tests = []
    for alert, trouble in [("", {}), *TROUBLE.items()]:
        firing = [f'ALERTS{{alertname="{alert}", alertstate="firing"}}'] if alert else []
        tests.append(
            {
                "name": alert or "a sound server",
                "interval": "1m",
                "input_series": series_with(trouble),
                "promql_expr_test": [
                    {
                        "expr": 'count by (alertname, alertstate) (ALERTS{alertstate="firing"})',
                        "eval_time": f"{LAST}m",
                        "exp_samples": [
                            {"labels": labels.replace("ALERTS", ""), "value": 1} for labels in firing
                        ],
                    }
                ],
            }
        )
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "5m", "tests": tests}))
    for arguments in (("check", "rules", ALERTS), ("test", "rules", file)):
        done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_exposition_is_what_prometheus_reads(exposed: str) -> None:
    """By promtool where there is one: names, types and help as they should be."""
    if PROMTOOL is not None:
        checked = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=exposed, capture_output=True, text=True, check=False
        )
        assert "error" not in checked.stderr.lower(), checked.stderr
    label = r'\w+="[^"]*"'  # a route may hold braces
    sample = rf"\w+(\{{{label}(,{label})*\}})? [-+0-9.einf]+"
    for line in exposed.splitlines():
        assert re.fullmatch(rf"# (HELP|TYPE) \w+ .+|{sample}", line), line
