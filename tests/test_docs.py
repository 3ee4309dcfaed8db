"""The documentation: what it tells to type works, and its references and tables are complete.

Building the site itself is `make docs`, which fails on a broken link; its packages are not needed here.
"""

import ast
import inspect
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cyclopts
import httpx2
import msgspec
import pytest

from auditplane import cli, errors
from auditplane.cli.commands import app
from auditplane.http import openapi, problems
from docs_site import api, commands, pages
from server import PROGRAM, Server, environment, start

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "auditplane"
README = ROOT / "README.md"

# What these tests don't run: test_packaging installs the program, test_process_demo plays the demo, and the
# checks run by themselves.
NOT_RUN = ("pip install", "make demo")
SERVE = "serve --data ./data"
SECONDS_MAX = 60

# One server for all of them.


def page(name: str) -> str:
    return (pages.DOCS / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


# What it tells to type.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that the pages tell to start, with an environment beside its folder."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "venv/bin").mkdir(parents=True)
    (folder / "venv/bin/activate").write_text(f"PATH={PROGRAM.parent}:$PATH\n")
    (folder / "venv/bin/auditplane").symlink_to(PROGRAM)
    with start(folder / "data") as running:
        yield running


def type_in(server: Server, script: str) -> str:
    """Types commands into a shell beside the data folder; returns what it printed. Any that fails, fails."""
    before = 'set -euo pipefail\ncurl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
    # The port is that of the test's server, the id that of a key of its own.
    script = script.replace("127.0.0.1:3001", f"127.0.0.1:{server.port}")
    made = "auditplane keys create --data ./data --role reader | sed -n 's/^id *//p'"
    script = re.sub(r"\b(revoke|link) ID", rf'\1 "$({made})"', script)
    for download in server.data.parent.glob("*.csv"):
        download.unlink()  # curl does not write over a file that it gave its name itself
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", before + script],
        cwd=server.data.parent,
        env=environment(
            {
                "PATH": path,
                "XDG_CONFIG_HOME": str(server.data.parent / "config"),
                "XDG_STATE_HOME": str(server.data.parent / "state"),
            }
        ),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "quick-start.md",
        "recording.md",
        "reading.md",
        "proving.md",
        "auditing.md",
        "backup.md",
        "keeping.md",
        "command-line.md",
        "page.md",
        "collector.md",
        "operating.md",
        "README.md",
    ],
)
def test_every_command_of_the_page_works(name: str, server: Server) -> None:
    """Who types what the page says, from top to bottom, gets no error."""
    found = blocks((README if name == "README.md" else pages.DOCS / name).read_text(), "sh")
    typed = [block for block in found if not any(word in block for word in (*NOT_RUN, SERVE))]
    assert typed
    type_in(server, "\n".join(typed))


def test_the_command_that_starts_the_server_is_the_one_that_these_tests_use() -> None:
    """The page's folder and port are those that the commands after it ask."""
    starts = [block for block in blocks(page("quick-start.md"), "sh") if SERVE in block]
    assert starts == [f"auditplane {SERVE}\n"]


def test_what_the_quick_start_records_it_finds(server: Server) -> None:
    """The commands do not only end well: the event of the page is in the answers of the page."""
    found = [block for block in blocks(page("quick-start.md"), "sh") if "curl" in block]
    text = type_in(server, "\n".join(found))
    assert '"ids":["' in text
    assert '"configuration":"prod-gateway:7"' in text
    (count,) = re.findall(r'\{"count":(\d+)\}', text)
    assert int(count) >= 1
    assert (server.data.parent / "audit-events-default.csv").stat().st_size


def run_program(text: str, server: Server) -> str:
    """Runs a program of a page as it stands there; returns what it printed."""
    env = {"AUDITPLANE_URL": server.url, "AUDITPLANE_API_KEY": server.admin_key}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PROGRAMS = blocks(page("recording.md"), "python")


@pytest.mark.parametrize("position", range(len(PROGRAMS)))
def test_every_program_of_the_page_records(position: int, server: Server) -> None:
    """A program copied from the page runs, and prints the id of an event that is there."""
    (event_id,) = ast.literal_eval(run_program(PROGRAMS[position], server))
    text = type_in(
        server,
        f'curl -H "X-Bindplane-Api-Key: $(cat data/admin.key)" {server.url}/v1/audit-events/{event_id}',
    )
    assert json.loads(text)["id"] == event_id


READERS = blocks(page("reading.md"), "python")
FEEDS = [program for program in READERS if "index" in program]


@pytest.mark.parametrize("position", range(len(FEEDS)))
def test_each_feed_of_the_page_shows_each_event_once(position: int, server: Server) -> None:
    """The first step gives all there is, the next one nothing more."""
    all_of_them, none = map(int, run_program(FEEDS[position], server).split())
    assert all_of_them >= 1
    assert none == 0


def test_the_reader_of_the_page_finds_what_was_recorded(server: Server) -> None:
    """It counts what matches, prints it, and downloads it."""
    (program,) = [program for program in READERS if program not in FEEDS]
    recorded = "auditplane record --user ann@example.com --action Created --kind Fleet --name of-the-reader"
    key = f"export AUDITPLANE_URL={server.url} AUDITPLANE_API_KEY={server.admin_key}"
    type_in(server, f"{key}\n{recorded}")
    count, newest, *_ = run_program(program, server).splitlines()
    assert int(count) >= 1
    assert newest.endswith("Created Fleet of-the-reader")


def test_the_example_of_an_error_is_what_the_server_answers(server: Server) -> None:
    """The sentence that the page of errors shows is a real one."""
    (example,) = blocks(page("errors.md"), "json")
    event = {"resourceKind": "Sorce", "resourceName": "otlp", "action": "Modified", "user": "ann"}
    asked = f"command curl -s -H 'X-Bindplane-Api-Key: {server.admin_key}' {server.url}/v1/audit-events"
    text = type_in(server, f"{asked} -H 'Content-Type: application/json' -d '{json.dumps([event])}'")
    assert json.loads(text) == json.loads(example)


def test_the_configuration_of_the_collector_is_whole() -> None:
    """It parses, the receiver has what it needs, and each part of the pipeline is defined."""
    (text,) = blocks(page("collector.md"), "yaml")
    config = msgspec.yaml.decode(text)
    receiver = config["receivers"]["bindplaneauditlogs"]
    assert receiver["endpoint"].startswith("https://")
    assert receiver["api_key"]
    assert re.fullmatch(r"[1-9]\d+s", receiver["poll_interval"])  # 10 seconds at least
    told = re.findall(r"^\| `(\w+)` \|", page("collector.md"), re.MULTILINE)
    assert set(receiver) <= set(told)
    (pipeline,) = config["service"]["pipelines"].values()
    for part in ("receivers", "processors", "exporters"):
        assert pipeline[part]
        assert set(pipeline[part]) <= set(config[part])


# The references.


def test_every_operation_and_schema_is_in_the_api_reference() -> None:
    """Paths, methods, parameters, headers, statuses and members: nothing that is served is left out."""
    document = openapi.document(("Playbook",))
    text = api.reference(document)
    sections = dict(re.findall(r"^### ([^\n]*)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            section = sections.pop(f"{method.upper()} {path}")
            if method == "head":
                assert "without the body" in section
                continue
            for parameter in operation["parameters"]:
                assert f"- `{parameter['name']}`" in section
            for status, answer in operation["responses"].items():
                assert f"`{status}` {answer['description']}" in section
                for name in (*answer.get("headers", ()), *answer.get("content", ())):
                    assert f"`{name}`" in section
            for media, body in operation.get("requestBody", {}).get("content", {}).items():
                assert f"- `{media}`" in section
                assert all(f'"{name}": ' in section for name in body.get("example", ()))
    for name, schema in document["components"]["schemas"].items():
        section = sections.pop(name.removeprefix("model."))
        assert all(f"- `{member}`: " in section for member in schema.get("properties", ()))
        assert all(f"`{value}`" in section for value in schema.get("enum", ()))
    assert not sections


def commands_of(program: cyclopts.App, name: str) -> Iterator[tuple[str, cyclopts.App]]:
    """Every command below a program, with its whole name."""
    for word, command in program.resolved_commands().items():
        if not word.startswith("-"):
            yield f"{name} {word}", command
            yield from commands_of(command, f"{name} {word}")


def flags_of(command: cyclopts.App) -> Iterator[tuple[str, ...]]:
    """The names of each argument and flag of a command.

    A parameter that is a dataclass is a group without a name; its flags stand beside it.
    """
    for argument in command.assemble_argument_collection():
        if argument.names == ("*",):
            assert argument.children
        else:
            yield argument.names


def test_every_command_and_flag_is_in_the_command_reference() -> None:
    """Also those of commands inside commands, and those that are added later."""
    text = commands.reference(app)
    sections = dict(re.findall(r"^##+ (auditplane [^\n]*)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    for name, command in commands_of(app, "auditplane"):
        section = sections.pop(name)
        function = command.default_command
        if function is None:
            continue
        assert f"```console\n{name}" in section
        printed = re.findall(r"^\* `([^`]+)`", section, re.MULTILINE)
        flags = list(flags_of(command))
        for names in flags:
            assert any(set(names) <= set(re.split(r"[, ]+", line)) for line in printed), names
        assert len(printed) == len(flags)
        example = (inspect.getdoc(function) or "").partition("For example:")[2].strip()
        assert all(line.strip() in section for line in example.splitlines())
    assert not sections


def test_a_command_inside_a_command_appears_by_itself() -> None:
    """The reference knows nothing of the tree but what the program tells."""
    program = cyclopts.App(name="auditplane", help_format="plaintext")
    outer, inner = cyclopts.App(name="get"), cyclopts.App(name="audit-events")
    program.command(outer)
    outer.command(inner)

    @inner.command
    def count(*, user: str = "") -> None:
        """Count.

        For example:

            auditplane get audit-events count --user ann
        """

    text = commands.reference(program)
    assert "\n#### auditplane get audit-events count\n" in text
    assert "```console\nauditplane get audit-events count [OPTIONS]\n" in text
    assert "```sh\nauditplane get audit-events count --user ann\n```" in text
    assert "`--user " in text


# Errors.


def tree() -> list[type[errors.AuditplaneError]]:
    found = [errors.AuditplaneError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == errors.__name__]


def rows(title: str) -> dict[str, list[str]]:
    """The rows of the table of a section with that header, by class: the first cell and what follows."""
    found = {}
    for line in page("errors.md").partition(title)[2].splitlines()[2:]:
        if not line.startswith("|"):
            break
        first, name, *rest = [cell.strip() for cell in line.strip("|").split(" | ")]
        found[name.strip("`")] = [first, *rest]
    return found


STATUSES = "| status | class | what causes it | what to do |"
EXITS = "| code | class | what causes it | what to do |"


def test_every_class_of_error_is_on_the_page_with_its_status() -> None:
    """Each has a row: among the statuses, or among those of the command line and the client only."""
    statuses, exits = rows(STATUSES), rows(EXITS)
    kinds = {kind.__name__: kind for kind in tree()}
    assert statuses.keys() | exits.keys() == kinds.keys()
    assert not statuses.keys() & exits.keys()
    for name, (status, cause, remedy) in statuses.items():
        assert int(status) == problems.status_of(kinds[name]())
        assert cause
        assert remedy
    for name, (code, *_) in exits.items():
        assert int(code) == (cli.MISUSED if name == "InvalidConfig" else cli.FAILED)


def test_every_status_that_is_served_is_on_the_page() -> None:
    """What the OpenAPI document and the table of statuses know is explained, and nothing else."""
    told = {int(status) for status, *_ in rows(STATUSES).values()}
    operations = [operation for path in openapi.document(())["paths"].values() for operation in path.values()]
    served = {int(status) for operation in operations for status in operation["responses"]}
    assert {status for status in served if status >= 400} <= told
    assert {int(status) for status in problems.STATUS.values()} == told


def refusals_of_the_connection() -> dict[str, set[int]]:
    """Requests that are no HTTP, or too much of it, and the statuses that may answer them."""
    line, end = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", "\r\n"
    many = "".join(f"X-{number}: a\r\n" for number in range(120))
    return {
        f"nonsense{end}{end}": {400},
        f"GET / HTTP/3.7{end}{end}": {400},
        f"GET /health{end}{end}": {400},
        f"{line}a b: c{end}{end}": {400},
        f"{line}Content-Length: 1{end}Content-Length: 2{end}{end}": {400},
        f"{line}Transfer-Encoding: nonsense{end}{end}": {400},
        "\x16\x03\x01\x02" + "a" * 100: {400},
        line.replace("/health", "/" + "a" * 70_000) + end: {414, 431},  # as it comes
        f"{line}{many}{end}": {431},
        f"{line}X: {'a' * 1_000_000}{end}{end}": {431},
    }


def test_what_is_no_http_is_answered_as_the_page_says(server: Server) -> None:
    """With a status that the page tells of, without a body."""
    table = page("errors.md").partition("## Answers without a body")[2].partition("\n## ")[0]
    told = set(map(int, re.findall(r"\d+", " ".join(re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)))))
    seen: set[int] = set()
    for request, expected in refusals_of_the_connection().items():
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(request.encode("latin-1"))
            found = connection.recv(65_536)
        head, _, body = found.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        assert status in expected, (request[:60], found[:100])
        assert not body
        seen.add(status)
    assert seen | {414} == told


def test_every_answer_to_an_unknown_path_or_method_is_on_the_page(server: Server) -> None:
    """In the form of all errors, although no class is raised for them."""
    told = {int(status) for status, *_ in rows(STATUSES).values()}
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("POST", "/health", 405),
        ("BREW", "/v1/holds", 405),
    ):
        answer = httpx2.request(method, server.url + path, verify=False)
        assert answer.status_code == status
        assert status in told
        assert len(answer.json()["errors"]) == 1


def test_every_class_that_is_raised_while_serving_is_among_the_statuses() -> None:
    """The classes of the command line and the client only are raised nowhere that a request comes to."""
    not_serving = re.compile(
        r"(cli|client)/|(config|demo|listening|rotation|signing|http/server|store/sqlite/folder)\.py"
    )
    names = {kind.__name__ for kind in tree()}
    raised: dict[str, set[str]] = {}
    for path in SOURCES.rglob("*.py"):
        where = path.relative_to(SOURCES).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                if called in names:
                    raised.setdefault(called, set()).add(where)
    for name in rows(EXITS):
        assert all(not_serving.match(where) for where in raised.pop(name)), name
    assert raised.keys() <= rows(STATUSES).keys()


def test_every_exit_code_is_on_the_page() -> None:
    """Those of `auditplane.cli`, and success."""
    codes = {value for name, value in vars(cli).items() if name.isupper() and isinstance(value, int)}
    told = re.findall(r"^\| (\d+) \| \w[^|]*\|$", page("errors.md"), re.MULTILINE)
    assert set(map(int, told)) == codes | {0}


# The site.


def test_every_page_has_its_place_and_every_link_its_target() -> None:
    """On the site, where all pages stand in one folder; `make docs` checks that the same way."""
    texts = pages.texts()
    pictures = set(pages.pictures())
    anchors = {name: set(map(anchor, headings(text))) for name, text in texts.items()}
    for name, text in texts.items():
        assert text.startswith("# "), name
        assert name == "index.md" or re.search(
            rf"^{re.escape(name.removesuffix('.md'))}$", texts["index.md"], re.MULTILINE
        )
        for link in links(text):
            target, _, fragment = link.partition("#")
            assert not target or target in texts or target in pictures, f"{name}: {link}"
            assert not fragment or fragment in anchors[target or name], f"{name}: {link}"


def test_every_link_in_the_repository_has_its_target() -> None:
    """Who reads the pages as files, without the site, finds what they link to as well."""
    others = [ROOT / name for name in pages.OTHERS]
    for path in [README, *others, *pages.DOCS.glob("*.md")]:
        for link in links(path.read_text()):
            target, _, fragment = link.partition("#")
            to = (path.parent / target) if target else path
            assert to.exists(), f"{path.name}: {link}"
            assert not fragment or fragment in map(anchor, headings(to.read_text())), f"{path.name}: {link}"


def test_every_test_that_the_page_of_security_names_is_there() -> None:
    """A sentence about who can do what is held by something."""
    named = re.findall(r"`(test_\w+\.py)`", page("security.md"))
    assert len(set(named)) > 10
    assert all((ROOT / "tests" / name).exists() for name in named)


def links(text: str) -> list[str]:
    """The links of a page to others, or to places in itself."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def headings(text: str) -> list[str]:
    return re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
