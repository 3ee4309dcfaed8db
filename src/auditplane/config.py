"""Settings: flags before environment before file, read once into a frozen value that is passed down.

A setting has a dotted name such as `kinds.extra`. In the environment it is `AUDITPLANE_KINDS_EXTRA`, in the
TOML file `extra` in the table `[kinds]`. The file is the one of `--config` or `AUDITPLANE_CONFIG`.
"""

import ipaddress
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from auditplane import limits
from auditplane.errors import InvalidConfig
from auditplane.event import SECRET_WORDS, Rules, nearest

_LOG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KIND = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
WORKERS_MAX: Final = 64
SHOWN_CHARS: Final = 80
FILE_BYTES_MAX: Final = 16 * 1024  # what reads TOML takes a minute for 256 KiB of some
TOKEN_CHARS_MIN: Final = 16


@dataclass(frozen=True)
class Config:
    """The settings of a server."""

    data: Path
    host: str
    port: int
    workers: int
    tls_cert: Path | None
    tls_key: Path | None
    tls_hsts: bool
    kinds_extra: tuple[str, ...]
    secret_words: tuple[str, ...]
    log_name: str | None
    log_key: Path | None
    log_public: bool
    retention_days: int
    record_reads: bool
    log_requests: bool
    connections: int
    idle_seconds: int
    body_seconds: int
    stall_seconds: int
    reads_per_minute: int
    events_per_minute: int
    metrics_token: Path | None

    @property
    def own_host(self) -> str:
        """Where this machine itself reaches the server: the loopback where `host` is all addresses."""
        with suppress(ValueError):
            address = ipaddress.ip_address(self.host)
            if address.is_unspecified:
                return "127.0.0.1" if address.version == 4 else "::1"
        return self.host

    @property
    def own_url(self) -> str:
        """The address at which this machine itself reaches the server."""
        scheme = "https" if self.tls_cert else "http"
        host = f"[{self.own_host}]" if ":" in self.own_host else self.own_host
        return f"{scheme}://{host}:{self.port}"

    def rules(self, account: str) -> Rules:
        """What the events of an account are checked against."""
        return Rules(account=account, extra_kinds=self.kinds_extra, secret_words=self.secret_words)


def _shown(value: Any) -> str:
    """A value for a sentence, short."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number that is far too large"
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise InvalidConfig(f"must be a whole number from {low} to {high}, is {_shown(value)}")
        return value

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidConfig(f"must be a text, is {_shown(value)}")
    return value


def _path(value: Any) -> Path:
    return path_of(_text(value))


def path_of(text: str) -> Path:
    """A path that may begin with ~; raises InvalidConfig."""
    if "\0" in text:
        raise InvalidConfig(f"must be a path, is {_shown(text)}")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InvalidConfig(f"nobody has the home that {_shown(text)} begins with") from None


def _texts(value: Any) -> tuple[str, ...]:
    items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise InvalidConfig(f"must be a list of texts, is {_shown(value)}")
    return tuple(dict.fromkeys(item for item in items if item))


def _kinds(value: Any) -> tuple[str, ...]:
    kinds = _texts(value)
    for kind in kinds:
        if not _KIND.fullmatch(kind):
            raise InvalidConfig(f"a kind is a letter and up to 63 letters and digits, this is {_shown(kind)}")
    return kinds


def _log_name(value: Any) -> str:
    if not isinstance(value, str) or not _LOG_NAME.fullmatch(value):
        raise InvalidConfig(f"must be letters, digits, dots, - and _, at most 64, is {_shown(value)}")
    return value


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise InvalidConfig(f"must be true or false, is {_shown(value)}")


@dataclass(frozen=True)
class Setting:
    """One setting: how it is read, what it is when not given, and what it is for."""

    read: Callable[[Any], Any]
    default: Any
    help: str

    @property
    def shown_default(self) -> str:
        """The default as a person reads it."""
        if self.default in (None, ()):
            return "none"
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return ", ".join(self.default) if isinstance(self.default, tuple) else str(self.default)


SETTINGS: Final[Mapping[str, Setting]] = {
    "data": Setting(_path, Path("auditplane-data"), "The folder that holds everything."),
    "host": Setting(_text, "127.0.0.1", "The address to listen on."),
    "port": Setting(_integer(1, 65535), 3001, "The port to listen on."),
    "workers": Setting(_integer(1, WORKERS_MAX), 1, "How many processes serve requests."),
    "tls.cert": Setting(_path, None, "A file with the TLS certificate chain, PEM; goes with tls.key."),
    "tls.key": Setting(_path, None, "A file with the private key of the certificate, PEM."),
    "tls.hsts": Setting(
        _flag, True, "With TLS: have browsers use nothing else for this host (Strict-Transport-Security)."
    ),
    "kinds.extra": Setting(_kinds, (), "Further values that resourceKind may have."),
    "details.secret_words": Setting(
        _texts, SECRET_WORDS, "A value in details whose key holds one of these is stored as [redacted]."
    ),
    "limits.connections": Setting(
        _integer(100, 1_000_000), limits.CONNECTIONS_MAX, "How many connections a worker may have at a time."
    ),
    "limits.idle_seconds": Setting(
        _integer(1, 3600), limits.IDLE_SECONDS_MAX, "Who is connected and asks for nothing is cut off then."
    ),
    "limits.body_seconds": Setting(
        _integer(1, 3600), limits.BODY_SECONDS_MAX, "The body of a request must have arrived by then."
    ),
    "limits.stall_seconds": Setting(
        _integer(1, 3600),
        limits.STALL_SECONDS_MAX,
        "A reader of a long answer who takes nothing for so long is cut off.",
    ),
    "limits.reads_per_minute": Setting(
        _integer(0, 100_000_000),
        limits.READS_PER_MINUTE_MAX,
        "How many requests a minute a key may send beside those that record; 0 is no bound.",
    ),
    "limits.events_per_minute": Setting(
        _integer(0, 100_000_000),
        limits.EVENTS_PER_MINUTE_MAX,
        "How many events a minute a key may record; 0 is no bound.",
    ),
    "server.log_requests": Setting(_flag, True, "Write a line to standard error for each request."),
    "metrics.token": Setting(
        _path, None, "A file with the token that /metrics asks for; without it anybody may ask."
    ),
    "log.name": Setting(
        _log_name, None, "The name of this server in the origin of its logs; fixed once the key is made."
    ),
    "log.key": Setting(_path, None, "A file with the key that signs checkpoints, in place of DATA/log.key."),
    "log.public": Setting(_flag, False, "Serve checkpoints, tiles and keys of logs without an API key."),
    "audit_trail.retention_days": Setting(
        _integer(0, limits.RETENTION_DAYS_MAX),
        0,
        "For how many days events are kept where an account has no retention of its own; 0 is for ever.",
    ),
    "audit_trail.record_reads": Setting(_flag, True, "Record who downloads the trail, in the trail."),
}


def flag(name: str) -> str:
    """The flag of a setting, where a command has one."""
    return "--" + name.replace(".", "-")


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "AUDITPLANE_" + re.sub(r"[.-]", "_", name).upper()


def describe(name: str) -> str:
    """What a setting is for, for the help of its flag."""
    setting = SETTINGS[name]
    return f"{setting.help} Default: {setting.shown_default}. Environment: {variable(name)}."


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: str | None = None) -> Config:
    """The settings that flags (by dotted name, None for not given), environment and file give.

    Raises InvalidConfig with all that is wrong: each sentence names the setting and where it was given.
    """
    found, problems = read(flags, environment, file)
    if problems:
        raise InvalidConfig(*problems)
    return found


def read(
    flags: Mapping[str, Any], environment: Mapping[str, str], file: str | None = None
) -> tuple[Config, list[str]]:
    """The settings, with the default in place of one that can't be used, and all that is wrong with them."""
    problems: list[str] = []

    def tried(reading: Callable[[], Any], default: Any) -> Any:
        try:
            return reading()
        except InvalidConfig as error:
            problems.extend(error.messages)
            return default

    file = file if file is not None else environment.get("AUDITPLANE_CONFIG") or None
    from_file = {} if file is None else tried(lambda: _from_file(Path(file)), {})
    problems += _unknown(from_file, SETTINGS, f" in {file}")
    problems += _unknown_variables(environment)
    values = {
        name: tried(partial(_value, name, flags, environment, from_file, file), setting.default)
        for name, setting in SETTINGS.items()
    }
    if (values["tls.cert"] is None) != (values["tls.key"] is None):
        problems.append("tls.cert and tls.key go together: give both or neither.")
    for name in ("tls.cert", "tls.key"):
        if values[name] is not None and not _is_file(values[name]):
            problems.append(f"{name}: there is no file {values[name]}.")
    return _config(values), problems


def _value(
    name: str,
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    from_file: Mapping[str, Any],
    file: str | None,
) -> Any:
    """A setting from the first place that gives it; raises InvalidConfig."""
    setting = SETTINGS[name]
    if flags.get(name) is not None:
        return _read(setting, flags[name], flag(name))
    if environment.get(variable(name)):
        return _read(setting, environment[variable(name)], variable(name))
    if name in from_file:
        return _read(setting, from_file[name], f"{name} in {file}")
    return setting.default


def _config(values: Mapping[str, Any]) -> Config:
    return Config(
        data=values["data"],
        host=values["host"],
        port=values["port"],
        workers=values["workers"],
        tls_cert=values["tls.cert"],
        tls_key=values["tls.key"],
        tls_hsts=values["tls.hsts"],
        kinds_extra=values["kinds.extra"],
        secret_words=values["details.secret_words"],
        log_name=values["log.name"],
        log_key=values["log.key"],
        log_public=values["log.public"],
        retention_days=values["audit_trail.retention_days"],
        record_reads=values["audit_trail.record_reads"],
        log_requests=values["server.log_requests"],
        connections=values["limits.connections"],
        idle_seconds=values["limits.idle_seconds"],
        body_seconds=values["limits.body_seconds"],
        stall_seconds=values["limits.stall_seconds"],
        reads_per_minute=values["limits.reads_per_minute"],
        events_per_minute=values["limits.events_per_minute"],
        metrics_token=values["metrics.token"],
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def token(file: Path | None) -> str | None:
    """The token in a file, if there is one; raises InvalidConfig when it is none."""
    if file is None:
        return None
    try:
        found = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise InvalidConfig(f"metrics.token: {file} can't be read: {reason}.") from None
    if len(found) < TOKEN_CHARS_MIN or not found.isprintable() or " " in found:
        raise InvalidConfig(
            f"metrics.token: {file} must hold one word of at least {TOKEN_CHARS_MIN} characters; "
            f"`openssl rand -hex 32` makes one."
        )
    return found


def _read(setting: Setting, value: Any, where: str) -> Any:
    try:
        return setting.read(value)
    except InvalidConfig as error:
        raise InvalidConfig(f"{where}: {error}.") from None


# Read by other commands than `serve`.
_OTHER_VARIABLES: Final = frozenset(
    {
        "AUDITPLANE_CONFIG",
        "AUDITPLANE_URL",
        "AUDITPLANE_API_KEY",
        "AUDITPLANE_CA_CERT",
        "AUDITPLANE_PROFILE",
        "AUDITPLANE_PROFILES",
    }
)


def refuse_unknown(environment: Mapping[str, str]) -> None:
    """Raises InvalidConfig for a variable that begins with AUDITPLANE_ and is none of ours."""
    problems = _unknown_variables(environment)
    if problems:
        raise InvalidConfig(*problems)


def _unknown_variables(environment: Mapping[str, str]) -> list[str]:
    known = {variable(name) for name in SETTINGS} | _OTHER_VARIABLES
    return _unknown((name for name in environment if name.startswith("AUDITPLANE_")), known, "")


def _unknown(names: Iterable[str], known: Collection[str], where: str) -> list[str]:
    """A sentence for each name that is none of those that are known."""
    return [f"{name}{where} is not a setting{_hint(name, known)}" for name in names if name not in known]


def _from_file(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise InvalidConfig(f"The configuration {file} has more than {FILE_BYTES_MAX // 1024} KiB.")
        tables = tomllib.loads(text.decode())
    except OSError as error:
        raise InvalidConfig(f"The configuration {file} can't be read: {error.strerror}.") from None
    except RecursionError:
        raise InvalidConfig(f"The configuration {file} is nested too deep.") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, or a number of thousands of digits
        raise InvalidConfig(f"The configuration {file} is not valid TOML: {error}.") from None
    found: dict[str, Any] = {}
    for name, value in tables.items():
        if isinstance(value, dict):
            found.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            found[name] = value
    return found


def _hint(name: str, known: Any) -> str:
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else "."
