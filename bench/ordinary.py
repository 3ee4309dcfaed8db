"""The ordinary server: an audit trail with FastAPI, SQLAlchemy and SQLite, written as their manuals show it.

It keeps what it has answered 201 to (WAL with synchronous=FULL), has an index for each usual question,
inserts batches in one statement, and streams its CSV. It asks for no key, which saves it some work. Served by
uvicorn with uvloop and httptools: `uvicorn --factory bench.ordinary:create`; the path of the database is in
the environment variable ORDINARY_DATABASE.
"""

import csv
import io
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine, Index, Select, String, create_engine, event, func, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

DATABASE: Final = "ORDINARY_DATABASE"
THREADS: Final = 40
LOCK_SECONDS_MAX: Final = 60
EXPORT_ROWS: Final = 1_000
COLUMNS: Final = (
    "id", "timestamp", "resourceName", "description", "resourceKind", "configuration", "action", "user",
)  # fmt: skip

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Base(DeclarativeBase):
    """The tables."""


class AuditEvent(Base):
    """An event as it is stored. Timestamps are UTC without saying so: SQLite knows of no time zones."""

    __tablename__ = "audit_events"
    __table_args__ = (
        Index("ix_user_timestamp", "user", "timestamp"),
        Index("ix_configuration_timestamp", "configuration_name", "timestamp"),
    )

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    timestamp: Mapped[datetime] = mapped_column(index=True)
    resource_name: Mapped[str]
    description: Mapped[str]
    resource_kind: Mapped[str]
    configuration_name: Mapped[str]
    configuration_version: Mapped[str]
    action: Mapped[str]
    user: Mapped[str]

    @property
    def configuration(self) -> str:
        """The name, and the version if there is one."""
        return ":".join(filter(None, (self.configuration_name, self.configuration_version)))


def new_id() -> str:
    """A ULID: 48 bits of milliseconds and 80 random ones."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


class EventIn(BaseModel):
    """An event as it is sent."""

    model_config = ConfigDict(populate_by_name=True)

    resource_name: str = Field(alias="resourceName", min_length=1, max_length=256)
    description: str = Field("", max_length=4096)
    resource_kind: str = Field(alias="resourceKind", min_length=1)
    configuration: str = Field("", max_length=256)
    action: str = Field(min_length=1, max_length=64)
    user: str = Field(min_length=1, max_length=256)

    def row(self) -> dict[str, object]:
        """The values of its row, with a new id and the time."""
        name, _, version = self.configuration.partition(":")
        return {
            "id": new_id(),
            "timestamp": datetime.now(UTC).replace(tzinfo=None),
            "resource_name": self.resource_name,
            "description": self.description,
            "resource_kind": self.resource_kind,
            "configuration_name": name,
            "configuration_version": version,
            "action": self.action,
            "user": self.user,
        }


class EventOut(BaseModel):
    """An event as it is shown."""

    model_config = ConfigDict(from_attributes=True, populate_by_name=True)

    id: str
    timestamp: datetime
    resource_name: str = Field(serialization_alias="resourceName")
    description: str
    resource_kind: str = Field(serialization_alias="resourceKind")
    configuration: str
    action: str
    user: str


class Filters(BaseModel):
    """What a list is asked for."""

    model_config = ConfigDict(extra="forbid")

    user: str | None = None
    configuration: str | None = None
    kind: str | None = None
    action: str | None = None
    min_date: datetime | None = None
    max_date: datetime | None = None
    order: Literal["asc", "desc"] = "desc"
    limit: int = Field(100, ge=1, le=10_000)

    def select(self) -> Select[AuditEvent]:
        """The newest events that match, or with `order` the oldest."""
        found = select(AuditEvent)
        if self.user:
            found = found.where(AuditEvent.user == self.user)
        if self.configuration:
            name, colon, version = self.configuration.partition(":")
            found = found.where(AuditEvent.configuration_name == name)
            if colon:
                found = found.where(AuditEvent.configuration_version == version)
        if self.kind:
            found = found.where(AuditEvent.resource_kind == self.kind)
        if self.action:
            found = found.where(AuditEvent.action == self.action)
        if self.min_date:
            found = found.where(AuditEvent.timestamp >= _stored(self.min_date))
        if self.max_date:
            found = found.where(AuditEvent.timestamp <= _stored(self.max_date))
        newest_first = self.order == "desc"
        by = AuditEvent.timestamp.desc() if newest_first else AuditEvent.timestamp.asc()
        return found.order_by(by).limit(self.limit)


def _stored(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def open_database(path: str) -> Engine:
    """The database, with its table. A commit is on disk when it returns."""
    # As many connections as FastAPI has threads: with fewer, threads wait for connections whose sessions wait
    # for a thread to end them.
    engine = create_engine(
        f"sqlite:///{path}", pool_size=THREADS, max_overflow=0, connect_args={"timeout": LOCK_SECONDS_MAX}
    )

    @event.listens_for(engine, "connect")
    def durable(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    Base.metadata.create_all(engine)
    return engine


def session(request: Request) -> Iterator[Session]:
    """A session of the database, for one request."""
    with Session(request.app.state.engine) as opened:
        yield opened


Opened = Annotated[Session, Depends(session)]


def create() -> FastAPI:
    """The application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = open_database(os.environ[DATABASE])
        yield
        app.state.engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.add_api_route("/events", record, methods=["POST"], status_code=201)
    app.add_api_route("/events/batch", record_batch, methods=["POST"], status_code=201)
    app.add_api_route("/events", list_events, methods=["GET"])
    app.add_api_route("/events.csv", download, methods=["GET"])
    app.add_api_route("/count", count, methods=["GET"])
    return app


def record(given: EventIn, opened: Opened) -> EventOut:
    """Records one event."""
    row = AuditEvent(**given.row())
    opened.add(row)
    opened.commit()
    return EventOut.model_validate(row)


def record_batch(given: list[EventIn], opened: Opened) -> dict[str, list[str]]:
    """Records events, all or none."""
    rows = [each.row() for each in given]
    opened.execute(insert(AuditEvent), rows)
    opened.commit()
    return {"ids": [str(row["id"]) for row in rows]}


def list_events(filters: Annotated[Filters, Query()], opened: Opened) -> list[EventOut]:
    """The newest events that match."""
    return [EventOut.model_validate(row) for row in opened.scalars(filters.select())]


def count(opened: Opened) -> int:
    """How many events there are."""
    return opened.scalar(select(func.count()).select_from(AuditEvent)) or 0


def download(request: Request) -> StreamingResponse:
    """All events as CSV, newest first."""
    engine: Engine = request.app.state.engine

    def parts() -> Iterator[str]:
        buffer = io.StringIO()
        writer = csv.writer(buffer)
        writer.writerow(COLUMNS)
        everything = select(AuditEvent).order_by(AuditEvent.timestamp.desc())
        with Session(engine) as opened:
            rows = opened.scalars(everything.execution_options(yield_per=EXPORT_ROWS))
            for part in rows.partitions():
                writer.writerows(_cells(row) for row in part)
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()

    return StreamingResponse(parts(), media_type="text/csv")


def _cells(row: AuditEvent) -> tuple[str, ...]:
    return (
        row.id,
        row.timestamp.isoformat() + "Z",
        row.resource_name,
        row.description,
        row.resource_kind,
        row.configuration,
        row.action,
        row.user,
    )
