"""A client of the API: record, read, count, follow and download the events of one account.

    with Client("http://127.0.0.1:3001", key) as client:
        client.record([{"user": "ann", "action": "Paused", "resourceKind": "Fleet", "resourceName": "edge"}])
        for event in client.events(Filter(users=("ann",)), limit=10):
            print(event["description"])

Long answers are streamed. One that breaks off raises ConnectionLost and is never taken for a whole one; what
a server refuses raises Refused, with its messages. Both are in `auditplane.errors`, as is InvalidConfig, for
an address or a key that can't be used.
"""

from auditplane.client.client import Client, Recorded
from auditplane.client.filters import Filter
from auditplane.errors import ConnectionLost, Refused

__all__ = ["Client", "ConnectionLost", "Filter", "Recorded", "Refused"]
