"""The named SQL statements and the migrations of an account's database."""

from typing import Final

from auditplane.store.sqlite.database import load_migrations, load_queries

QUERIES: Final = load_queries("auditplane.store.sqlite")
MIGRATIONS: Final = load_migrations("auditplane.store.sqlite")
KEY_MAX: Final = (1 << 63) - 1
