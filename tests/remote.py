"""`auditplane` commands as processes, talking to the server of an account."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server import PROGRAM, environment


@dataclass(frozen=True)
class Remote:
    """Where commands find their server."""

    url: str
    key: str

    def env(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a command, in which no profile is kept."""
        found = {"AUDITPLANE_URL": self.url, "AUDITPLANE_API_KEY": self.key, "AUDITPLANE_PROFILES": "/none"}
        return environment({**found, **(extra or {})})

    def call(
        self,
        *args: str | Path,
        stdin: bytes | str = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a command to its end."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [PROGRAM, *args],
            env=self.env(env),
            input=given,
            capture_output=True,
            timeout=60,
            check=False,
            cwd=cwd,
        )
        assert not self.key or self.key not in f"{done.stdout!r}{done.stderr!r}"
        return done

    def output(self, *args: str | Path, stdin: bytes | str = b"") -> str:
        """What a command that went well has printed; nothing on standard error."""
        done = self.call(*args, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode()

    def failure(self, *args: str | Path, status: int = 1, stdin: bytes | str = b"") -> str:
        """The one line of a command that failed."""
        done = self.call(*args, stdin=stdin)
        told = done.stderr.decode()
        assert done.returncode == status, done
        assert told.startswith("auditplane: ")
        assert told.count("\n") == 1
        assert told[:-1].isprintable()
        return told

    def on_terminal(self, *args: str | Path, columns: int = 100) -> str:
        """What a command shows on a terminal so wide."""
        near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        process = subprocess.Popen(
            [PROGRAM, *args],
            env={**self.env(), "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=far,
            stderr=far,
        )
        os.close(far)
        shown = b""
        try:
            while piece := os.read(near, 65536):
                shown += piece
        except OSError:  # so a terminal ends
            pass
        finally:
            os.close(near)
            process.wait(60)
        return re.sub(r"\r+\n", "\n", shown.decode())
