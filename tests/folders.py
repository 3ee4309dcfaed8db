"""Data folders for tests of what is below the keys."""

from collections.abc import Iterator
from contextlib import contextmanager

from auditplane.store.sqlite.account import AccountStore
from auditplane.store.sqlite.folder import DataFolder


class FreeFolder(DataFolder):
    """One in which a log begins with its first use, though its account has no key."""

    @contextmanager
    def account(self, name: str, *, may_begin: bool = True) -> Iterator[AccountStore]:
        """The store of an account, made when there is none."""
        with super().account(name, may_begin=may_begin) as store:
            yield store
