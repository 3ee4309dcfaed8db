import re
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from auditplane import config
from auditplane.errors import InvalidConfig
from auditplane.event import SECRET_WORDS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
FLAGS = {"data", "host", "port", "workers", "tls.cert", "tls.key"}
OTHERS = {
    "data": ("elsewhere", Path("elsewhere")),
    "host": ("::1", "::1"),
    "port": ("8443", 8443),
    "workers": ("3", 3),
    "kinds.extra": ("Playbook, Runbook", ("Playbook", "Runbook")),
    "details.secret_words": ("pin,otp", ("pin", "otp")),
    "limits.stall_seconds": ("5", 5),
    "limits.connections": ("500", 500),
    "limits.idle_seconds": ("5", 5),
    "limits.body_seconds": ("7", 7),
    "limits.reads_per_minute": ("600", 600),
    "limits.events_per_minute": ("60000", 60_000),
    "server.log_requests": ("false", False),
    "metrics.token": ("elsewhere/token", Path("elsewhere/token")),
    "log.name": ("audit.example", "audit.example"),
    "log.key": ("elsewhere/log.key", Path("elsewhere/log.key")),
    "log.public": ("true", True),
    "audit_trail.retention_days": ("400", 400),
    "audit_trail.record_reads": ("false", False),
}
MEMBERS = {
    "details.secret_words": "secret_words",
    "limits.stall_seconds": "stall_seconds",
    "server.log_requests": "log_requests",
    "limits.connections": "connections",
    "limits.idle_seconds": "idle_seconds",
    "limits.body_seconds": "body_seconds",
    "limits.reads_per_minute": "reads_per_minute",
    "limits.events_per_minute": "events_per_minute",
    "audit_trail.retention_days": "retention_days",
    "audit_trail.record_reads": "record_reads",
}


def member(loaded: config.Config, name: str) -> Any:
    """The value of a setting, by its dotted name."""
    return getattr(loaded, MEMBERS.get(name, name.replace(".", "_")))


def toml(name: str, value: object) -> str:
    """A file that gives one setting."""
    table, _, key = name.rpartition(".")
    written = (
        str(list(value))
        if isinstance(value, tuple)
        else repr(value).lower()
        if isinstance(value, int)
        else f'"{value}"'
    )
    return (f"[{table}]\n" if table else "") + f"{key} = {written}\n"


def refusal(flags: dict[str, Any], environment: dict[str, str], file: Path | None = None) -> str:
    """What the person is told."""
    with pytest.raises(InvalidConfig) as caught:
        config.load(flags, environment, str(file) if file else None)
    (sentence,) = caught.value.messages
    assert "\n" not in sentence
    return sentence


def test_the_defaults_hold_where_nothing_is_given() -> None:
    """A server without settings serves its own machine only, from a folder beside it."""
    loaded = config.load({}, {})
    assert loaded.host == "127.0.0.1"
    assert (loaded.data, loaded.port, loaded.workers) == (Path("auditplane-data"), 3001, 1)
    assert (loaded.tls_cert, loaded.tls_key, loaded.kinds_extra) == (None, None, ())
    assert (loaded.secret_words, loaded.stall_seconds) == (SECRET_WORDS, 60)
    assert (loaded.retention_days, loaded.record_reads) == (0, True)


@pytest.mark.parametrize("name", OTHERS)
def test_flags_go_before_the_environment_and_that_before_the_file(name: str, tmp_path: Path) -> None:
    """Each setting is taken from the first place that gives it."""
    text, value = OTHERS[name]
    default = config.SETTINGS[name].default
    shown = ",".join(default) if isinstance(default, tuple) else config.SETTINGS[name].shown_default
    shown = "" if default is None else shown
    file = tmp_path / "file.toml"
    file.write_text(toml(name, value))
    variable = config.variable(name)

    assert member(config.load({}, {}, str(file)), name) == value
    assert member(config.load({}, {"AUDITPLANE_CONFIG": str(file)}), name) == value
    assert member(config.load({}, {variable: ""}, str(file)), name) == value
    if shown:
        assert member(config.load({}, {variable: shown}, str(file)), name) == default
    assert member(config.load({}, {variable: text}), name) == value
    if name in FLAGS:
        assert member(config.load({name: text}, {variable: shown}, str(file)), name) == value
        assert member(config.load({name: None}, {variable: text}), name) == value


def test_a_flag_names_the_file_before_the_environment_does(tmp_path: Path) -> None:
    """`--config` goes before AUDITPLANE_CONFIG."""
    for port in (1, 2):
        (tmp_path / f"{port}.toml").write_text(f"port = {port}")
    environment = {"AUDITPLANE_CONFIG": str(tmp_path / "2.toml")}
    assert config.load({}, environment, str(tmp_path / "1.toml")).port == 1
    assert config.load({}, environment).port == 2


@pytest.mark.parametrize(
    ("text", "wrong", "near"),
    [
        ("prot = 1", "prot", "port"),
        ("[tls]\ncertt = 'x'", "tls.certt", "tls.cert"),
        ("[kinds]\nexra = []", "kinds.exra", "kinds.extra"),
        ("[limits]\nstall-seconds = 5", "limits.stall-seconds", "limits.stall_seconds"),
    ],
)
def test_an_unknown_setting_in_the_file_is_named_with_the_nearest(
    text: str, wrong: str, near: str, tmp_path: Path
) -> None:
    """A misspelt setting is no setting that silently does nothing."""
    file = tmp_path / "file.toml"
    file.write_text(text)
    assert refusal({}, {}, file) == f"{wrong} in {file} is not a setting; did you mean {near}?"


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("AUDITPLANE_PROT", "AUDITPLANE_PORT"),
        ("AUDITPLANE_TLSCERT", "AUDITPLANE_TLS_CERT"),
        ("AUDITPLANE_CONFIGURATION", "AUDITPLANE_CONFIG"),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest(wrong: str, near: str) -> None:
    """So is a misspelt variable."""
    assert refusal({}, {wrong: "1"}) == f"{wrong} is not a setting; did you mean {near}?"


def test_variables_of_others_are_none_of_our_business() -> None:
    """Only what begins with AUDITPLANE_ is looked at."""
    config.load({}, {"PATH": "/bin", "auditplane_prot": "1", "AUDITPLANE": "1", "AUDITPLANE_API_KEY": "ap_x"})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("port", "0", "whole number from 1 to 65535"),
        ("port", "65536", "whole number from 1 to 65535"),
        ("port", "1e3", "whole number from 1 to 65535"),
        ("port", "-1", "whole number from 1 to 65535"),
        ("port", "٣", "whole number from 1 to 65535"),
        ("workers", "0", "whole number from 1 to 64"),
        ("workers", "65", "whole number from 1 to 64"),
        ("limits.stall_seconds", "0", "whole number from 1 to 3600"),
        ("limits.stall_seconds", "3601", "whole number from 1 to 3600"),
        ("audit_trail.retention_days", "36501", "whole number from 0 to 36500"),
        ("audit_trail.retention_days", "-1", "whole number from 0 to 36500"),
        ("audit_trail.record_reads", "yes", "true or false"),
        ("kinds.extra", "Play book", "letter and up to 63 letters and digits"),
        ("kinds.extra", "1st", "letter and up to 63 letters and digits"),
        ("port", "1" * 5_000, "whole number from 1 to 65535"),
        ("data", "~nobody-of-that-name/trail", "nobody has the home"),
        ("log.key", "~nobody-of-that-name", "nobody has the home"),
    ],
)
def test_a_bad_value_is_refused_and_says_where_it_was_given(
    name: str, value: str, told: str, tmp_path: Path
) -> None:
    """The sentence names flag, variable, or setting and file, and what would be right."""
    in_environment = refusal({}, {config.variable(name): value})
    assert in_environment.startswith(f"{config.variable(name)}: ")
    assert told in in_environment
    file = tmp_path / "file.toml"
    file.write_text(toml(name, [value] if name == "kinds.extra" else value))
    assert refusal({}, {}, file).startswith(f"{name} in {file}: ")
    assert refusal({name: value}, {}).startswith(f"{config.flag(name)}: ")


WRONG_TYPES = [
    "port = true", "port = 1.5", "port = []", "data = 5", "host = ''", "data = ['a']", "[data]\nx = 1",
    "[kinds]\nextra = 5", "[kinds]\nextra = [1]", "[tls]\ncert = 1", "[kinds.extra]\nmore = 1", "kinds = 1",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG_TYPES)
def test_a_value_of_another_type_is_refused(text: str, tmp_path: Path) -> None:
    """TOML has types: a wrong one is an error, never guessed at."""
    file = tmp_path / "file.toml"
    file.write_text(text)
    assert str(file) in refusal({}, {}, file)


def test_the_ends_of_each_range_are_taken() -> None:
    """A bound belongs to what it bounds."""
    ranges = {
        "port": (1, 65535),
        "workers": (1, 64),
        "limits.stall_seconds": (1, 3600),
        "audit_trail.retention_days": (0, 36_500),
    }
    for name, ends in ranges.items():
        for end in ends:
            assert member(config.load({}, {config.variable(name): str(end)}), name) == end


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:3001"),  # noqa: S104 - not bound
        ("::", "http://[::1]:3001"),
        ("0:0:0:0:0:0:0:0", "http://[::1]:3001"),
        ("::1", "http://[::1]:3001"),
        ("192.0.2.7", "http://192.0.2.7:3001"),
        ("audit.example.com", "http://audit.example.com:3001"),
    ],
)
def test_the_machine_itself_reaches_the_server_by_an_address_that_can_be_connected_to(
    host: str, url: str
) -> None:
    """All addresses are none to connect to: the loopback of the same family stands for them."""
    assert config.load({"host": host}, {}).own_url == url


@pytest.mark.parametrize("name", ["data", "host", "tls.cert"])
def test_an_empty_flag_is_an_error(name: str) -> None:
    """`--data "$UNSET"` must not mean the folder that one stands in."""
    assert refusal({name: ""}, {}).startswith(config.flag(name))


def test_tls_needs_both_files(tmp_path: Path) -> None:
    """A certificate without its key, or a file that is not there, is told at once."""
    there = tmp_path / "there.pem"
    there.touch()
    assert "go together" in refusal({"tls.cert": str(there)}, {})
    assert "go together" in refusal({}, {"AUDITPLANE_TLS_KEY": str(there)})
    missing = str(tmp_path / "missing.pem")
    assert missing in refusal({"tls.cert": str(there), "tls.key": missing}, {})
    assert config.load({"tls.cert": str(there), "tls.key": str(there)}, {}).tls_key == there


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that is not there, is a folder, is no TOML or no text."""
    broken, binary = tmp_path / "broken.toml", tmp_path / "binary.toml"
    broken.write_text("port = = 1")
    binary.write_bytes(b"\xff\xfe")
    for file in (tmp_path / "missing.toml", tmp_path, broken, binary):
        assert str(file) in refusal({}, {}, file)


@pytest.mark.parametrize(
    "text",
    [
        "port = " + "1" * 5_000,
        "port = 0x" + "f" * 5_000,
        "data = 0x" + "f" * 5_000,
        "kinds.extra = [0x" + "f" * 5_000 + "]",
        "log.public = 0x" + "f" * 5_000,
        "port = " + "[" * 5_000,
        'data = "\\u0000"',
        f'tls = {{cert = "{"a" * 5_000}", key = "b"}}',
        "a." * 6_000 + "b = 1",
        "#" * 20_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_file_that_the_standard_library_chokes_on_is_refused(text: str, tmp_path: Path) -> None:
    """Python reads and writes no number of thousands of digits, and TOML of many dots in minutes."""
    file = tmp_path / "file.toml"
    file.write_text(text)
    began = time.process_time()
    with pytest.raises(InvalidConfig) as caught:
        config.load({}, {}, str(file))
    told = str(caught.value)
    assert str(file) in told or "there is no file" in told
    assert time.process_time() - began < 5
    assert len(told) < 6_000


def test_a_home_folder_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands it in the environment or the file."""
    monkeypatch.setenv("HOME", "/home/ann")
    assert config.load({}, {"AUDITPLANE_DATA": "~/trail"}).data == Path("/home/ann/trail")


def test_an_empty_list_in_the_file_is_one(tmp_path: Path) -> None:
    """Redaction can be turned off, in the file only, where it can't happen by accident."""
    file = tmp_path / "file.toml"
    file.write_text("[details]\nsecret_words = []")
    assert config.load({}, {}, str(file)).secret_words == ()
    assert config.load({}, {"AUDITPLANE_DETAILS_SECRET_WORDS": ""}).secret_words == SECRET_WORDS


# The page.


def test_every_setting_stands_in_the_table_of_the_page() -> None:
    """docs/configuration.md tells of each its default, flag, variable and place in the file; of no other."""
    rows = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `"):
            name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[name.strip("`")] = cells
    assert list(rows) == list(config.SETTINGS)
    for name, (default, flag, variable, place) in rows.items():
        shown = config.SETTINGS[name].shown_default
        assert default == {"none": "none", ", ".join(SECRET_WORDS): "see below"}.get(shown, f"`{shown}`")
        assert flag == (f"`{config.flag(name)}`" if name in FLAGS else "")
        assert variable == f"`{config.variable(name)}`"
        table, _, key = name.rpartition(".")
        assert place == (f"`{key}` in `[{table}]`" if table else f"`{key}`")


def test_every_setting_is_explained_on_the_page() -> None:
    """Each has a line of its own, and the list of secret words is the one in use."""
    text = PAGE.read_text()
    explained = re.findall(r"^- (`[^:]*`): \w", text, re.MULTILINE)
    assert re.findall(r"`(.*?)`", " ".join(explained)) == list(config.SETTINGS)
    assert f"The default is {', '.join(SECRET_WORDS)}." in text


def test_the_example_of_the_page_is_complete_and_loads(tmp_path: Path) -> None:
    """Who copies the whole file gets every setting as it stands there."""
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    example = example.replace("/etc/auditplane/", f"{tmp_path}/")
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).touch()
    file = tmp_path / "file.toml"
    file.write_text(example)
    loaded = config.load({}, {}, str(file))
    given = {
        f"{name}.{key}" if isinstance(value, dict) else name: inner
        for name, value in tomllib.loads(example).items()
        for key, inner in (value.items() if isinstance(value, dict) else [("", value)])
    }
    assert list(given) == list(config.SETTINGS)
    for name, value in given.items():
        assert member(loaded, name) == config.SETTINGS[name].read(value)
