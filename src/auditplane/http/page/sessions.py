"""Stand-in."""
from dataclasses import dataclass
from auditplane.access import Key
@dataclass(frozen=True)
class Session:
    key: Key
    expires_us: int
    csrf: str
def session(request):
    state = request.state.server
    keys = [k for k in state.access.keys("default") if k.role.value == "admin"]
    return Session(keys[0], 0, "csrf")
