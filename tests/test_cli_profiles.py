"""`profile`, and where commands find their server and key."""

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from auditplane.cli.connection import DEFAULT_URL, Connection
from auditplane.cli.profiles import Profile, Profiles
from auditplane.errors import InvalidConfig
from remote import Remote
from server import PROGRAM, environment
from tenants import Tenant

KEY, OTHER_KEY = "ap_aaaaaaaaaaaaaaaaaaaaaaaa", "ap_bbbbbbbbbbbbbbbbbbbbbbbb"


def profile(home: Path, *args: str, stdin: str = "", status: int = 0) -> str:
    """Runs `profile` in a home of its own; what it prints never holds a key."""
    done = subprocess.run(
        [PROGRAM, "profile", *args],
        env=environment({"XDG_CONFIG_HOME": str(home)}),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done
    assert "ap_aaa" not in done.stdout + done.stderr
    assert "ap_bbb" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def kept(home: Path) -> Any:
    """What the file holds."""
    return json.loads((home / "auditplane" / "profiles.json").read_text())


def test_profiles_are_kept_used_listed_and_forgotten(tmp_path: Path) -> None:
    """The first one is in use at once; the list shows no key; the file is for its owner alone."""
    assert profile(tmp_path, "list", "-o", "json") == "[]\n"
    profile(tmp_path, "set", "work", "--url", "https://audit.example.com", stdin=f"{KEY}\n")
    profile(tmp_path, "set", "home", "--api-key", OTHER_KEY)
    file = tmp_path / "auditplane" / "profiles.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]
    assert kept(tmp_path) == {
        "current": "work",
        "profiles": {
            "work": {"url": "https://audit.example.com", "apiKey": KEY},
            "home": {"url": DEFAULT_URL, "apiKey": OTHER_KEY},
        },
    }
    profile(tmp_path, "use", "home")
    listed = json.loads(profile(tmp_path, "list", "-o", "json"))
    assert [(one["name"], one["inUse"]) for one in listed] == [("work", False), ("home", True)]
    assert "work" in profile(tmp_path, "list")
    profile(tmp_path, "delete", "home")
    assert kept(tmp_path)["current"] is None
    assert list(kept(tmp_path)["profiles"]) == ["work"]
    for command in ("use", "delete"):
        assert "no profile 'home'" in profile(tmp_path, command, "home", status=1)


@pytest.mark.parametrize(
    ("args", "stdin", "told"),
    [
        (["x", "--url", "nonsense"], KEY, "address"),
        (["x"], "", "no API key"),
        (["x", "--api-key", f"{KEY} {KEY}"], "", "blanks"),
        (["x", "--url", "https://x", "--ca-cert", "/none"], KEY, "/none"),
        (["x\ny"], KEY, "one line"),
        ([], KEY, "NAME"),
        (["x", KEY], "", "ap_…"),
    ],
)
def test_what_could_not_work_is_not_kept(tmp_path: Path, args: list[str], stdin: str, told: str) -> None:
    assert told in profile(tmp_path, "set", *args, stdin=stdin, status=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"profiles": {"x": {}}}', '{"profiles": []}', "\x00"])
def test_a_file_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    """One line that names it; it is not overwritten."""
    file = tmp_path / "auditplane" / "profiles.json"
    file.parent.mkdir()
    file.write_text(text)
    file.chmod(0o600)
    told = profile(tmp_path, "set", "x", "--api-key", KEY, status=2)
    assert told == f"auditplane: {file} does not hold profiles; move it away and set them anew.\n"
    assert file.read_text() == text


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """As by ssh: the line says what to do."""
    profile(tmp_path, "set", "x", "--api-key", KEY)
    file = tmp_path / "auditplane" / "profiles.json"
    file.chmod(0o644)
    assert f"chmod 600 {file}" in profile(tmp_path, "list", status=2)


def chosen(connection: Connection, variables: dict[str, str], path: Path) -> tuple[str, str]:
    """The address and the key that a command would use."""
    server = connection.chosen({"AUDITPLANE_PROFILES": str(path), **variables})
    return server.url, server.api_key


def test_flags_go_before_variables_and_those_before_the_profile(tmp_path: Path) -> None:
    """A profile named by a flag goes before variables; its key goes to no other server."""
    path = tmp_path / "profiles.json"
    profiles = {"a": Profile("http://a", "ap_a"), "b": Profile("http://b", "ap_b")}
    Profiles(path, "a", profiles).write()
    url, key = {"AUDITPLANE_URL": "http://v"}, {"AUDITPLANE_API_KEY": "ap_v"}
    named = {"AUDITPLANE_PROFILE": "b"}
    assert chosen(Connection(), {}, path) == ("http://a", "ap_a")
    assert chosen(Connection(), named, path) == ("http://b", "ap_b")
    assert chosen(Connection(profile="b"), {**url, **key}, path) == ("http://b", "ap_b")
    assert chosen(Connection(), {**url, **key, **named}, path) == ("http://v", "ap_v")
    assert chosen(Connection(), key, path) == ("http://a", "ap_v")
    assert chosen(Connection(url="http://f", api_key="ap_f"), {**url, **key}, path) == ("http://f", "ap_f")
    assert chosen(Connection(url="http://a"), {}, path) == ("http://a", "ap_a")
    for connection, variables in (
        (Connection(url="http://f"), {}),
        (Connection(url="http://f", profile="b"), {}),
        (Connection(), url),
    ):
        with pytest.raises(InvalidConfig, match=r"no API key for http://[fv]"):
            chosen(connection, variables, path)
    with pytest.raises(InvalidConfig, match="there are a, b"):
        chosen(Connection(profile="c"), {}, path)
    assert chosen(Connection(), {**key, "AUDITPLANE_PROFILES": str(tmp_path / "no")}, path) == (
        DEFAULT_URL,
        "ap_v",
    )
    with pytest.raises(InvalidConfig, match="AUDITPLANE_URL"):
        chosen(Connection(), {"AUDITPLANE_ULR": "x"}, path)


def test_no_key_is_in_what_python_would_print() -> None:
    """A traceback or a log that shows these values shows no key."""
    assert KEY not in repr(Profile("http://a", KEY))
    assert KEY not in repr(Connection(api_key=KEY))
    assert KEY not in repr(Connection(api_key=KEY).chosen({"AUDITPLANE_PROFILES": "/none"}))


def test_commands_use_the_profile(tenant: Tenant, tmp_path: Path) -> None:
    """With its address, its key, and nothing in the environment."""
    secret = tenant.key("admin")[1]
    env = {"AUDITPLANE_PROFILES": str(tmp_path / "p.json"), "AUDITPLANE_URL": "", "AUDITPLANE_API_KEY": ""}
    remote = Remote(tenant.server.url, secret)
    done = remote.call("profile", "set", "x", "--url", tenant.server.url, stdin=secret, env=env)
    assert done.returncode == 0
    assert remote.call("count", env=env).stdout == b"1\n"
    assert remote.call("count", "--profile", "y", env=env).returncode == 2


def test_a_profile_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A folder that can't be written to leaves the old file."""
    path = tmp_path / "kept" / "profiles.json"
    Profiles(path, "a", {"a": Profile("http://a", "ap_a")}).write()
    before = path.read_bytes()
    with pytest.raises(TypeError):
        Profiles(path, "a", {"a": Profile(object(), "ap_a")}).write()  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
