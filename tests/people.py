"""People who use the page: signed in, in a browser."""

from typing import Any

from browser import OpenPage, Watched
from tenants import Tenant


def sign_in(watched: Watched, secret: str) -> None:
    """Signs in with a key, as the form does."""
    watched.allow(r"/live|ERR_ABORTED")  # a page that is left ends its stream
    answer = watched.page.request.post("/sign-in", form={"key": secret}, max_redirects=0)
    assert answer.status == 303, answer.text()


def signed_in(open_page: OpenPage, tenant: Tenant, role: str = "reader", **options: Any) -> Watched:
    """A page of somebody who is signed in with a new key."""
    watched = open_page(tenant.server.url, **options)
    sign_in(watched, tenant.key(role)[1])
    return watched
