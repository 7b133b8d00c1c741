"""Which checkpoint is served under which name, and which replicas serve it already.

The trainer writes the choice; every inference replica polls `served`, loads, and says so by `heartbeat`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import delete, select

from nanochat.errors import Conflict, NotFound
from nanochat.jobs.database import Database
from nanochat.jobs.tables import ModelRow, ReplicaRow

# Replicas beat every second; a few missed beats are a busy machine, ten seconds are a dead process.
REPLICA_TTL_S = 10.0


@dataclass(frozen=True, kw_only=True)
class ServedChoice:
    """What is to be served under `name`. `generation` grows with every promote and rollback."""

    name: str
    checkpoint: str
    previous: str | None
    generation: int
    promoted_at: float


@dataclass(frozen=True, kw_only=True)
class Replica:
    """An inference process, as it last described itself. `error` says why it does not serve the choice."""

    id: str
    name: str
    checkpoint: str | None
    error: str | None
    heartbeat_at: float


class ModelStore:
    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def served(self, name: str) -> ServedChoice | None:
        """The choice for this name; None before the first promotion."""
        with self._database.read() as session:
            row = session.get(ModelRow, name)
            return _choice(row) if row else None

    def choices(self) -> list[ServedChoice]:
        with self._database.read() as session:
            return [_choice(row) for row in session.scalars(select(ModelRow).order_by(ModelRow.name))]

    def promote(self, name: str, checkpoint: str) -> ServedChoice:
        """Choose a checkpoint, whose id and manifest the caller has checked. The present one again changes nothing."""
        first = {
            "name": name,
            "checkpoint": checkpoint,
            "previous": None,
            "generation": 1,
            "promoted_at": self._clock(),
        }
        with self._database.write() as session:
            self._database.upsert(session, ModelRow, first)
            row = session.get_one(ModelRow, name, with_for_update=True)
            if row.checkpoint != checkpoint:
                row.previous, row.checkpoint = row.checkpoint, checkpoint
                row.generation += 1
                row.promoted_at = self._clock()
            return _choice(row)

    def previous(self, name: str) -> str:
        """The checkpoint that a rollback would choose. Raises NotFound, or Conflict when there is none."""
        with self._database.read() as session:
            return _previous(session.get(ModelRow, name), name)

    def rollback(self, name: str) -> ServedChoice:
        """Choose the one before; a second rollback goes forward again. Raises as previous() does."""
        with self._database.write() as session:
            row = session.get(ModelRow, name, with_for_update=True)
            previous = _previous(row, name)
            assert row is not None
            row.checkpoint, row.previous = previous, row.checkpoint
            row.generation += 1
            row.promoted_at = self._clock()
            return _choice(row)

    def heartbeat(self, replica_id: str, name: str, checkpoint: str | None, error: str | None = None) -> None:
        """A replica says what it serves now. Beat at least every REPLICA_TTL_S / 3."""
        values = {
            "id": replica_id,
            "name": name,
            "checkpoint": checkpoint,
            "error": error,
            "heartbeat_at": self._clock(),
        }
        with self._database.write() as session:
            self._database.upsert(session, ReplicaRow, values, ("name", "checkpoint", "error", "heartbeat_at"))

    def retire(self, replica_id: str) -> None:
        """A replica that drains takes itself off, so that no promotion waits for it."""
        with self._database.write() as session:
            session.execute(delete(ReplicaRow).where(ReplicaRow.id == replica_id))

    def live_replicas(self, name: str) -> list[Replica]:
        """Those that beat within REPLICA_TTL_S."""
        oldest = self._clock() - REPLICA_TTL_S
        query = select(ReplicaRow).where(ReplicaRow.name == name, ReplicaRow.heartbeat_at > oldest)
        with self._database.read() as session:
            return [
                Replica(
                    id=row.id,
                    name=row.name,
                    checkpoint=row.checkpoint,
                    error=row.error,
                    heartbeat_at=row.heartbeat_at,
                )
                for row in session.scalars(query.order_by(ReplicaRow.id))
            ]


def _previous(row: ModelRow | None, name: str) -> str:
    if row is None:
        raise NotFound(f"no model {name!r}; promote a checkpoint under this name first.", param="name")
    if row.previous is None:
        raise Conflict(f"model {name!r} has had only {row.checkpoint}; there is nothing to roll back to.")
    return row.previous


def _choice(row: ModelRow) -> ServedChoice:
    return ServedChoice(
        name=row.name,
        checkpoint=row.checkpoint,
        previous=row.previous,
        generation=row.generation,
        promoted_at=row.promoted_at,
    )
