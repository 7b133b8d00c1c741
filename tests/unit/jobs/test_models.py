import pytest

from nanochat.errors import Conflict, NotFound
from nanochat.jobs.models import REPLICA_TTL_S, ModelStore

from .conftest import Clock


def test_nothing_is_served_before_the_first_promotion(models: ModelStore) -> None:
    assert models.served("m") is None
    with pytest.raises(NotFound, match="promote a checkpoint"):
        models.rollback("m")


def test_a_promotion_is_remembered_with_the_one_before(models: ModelStore, clock: Clock) -> None:
    models.promote("m", "a")
    clock.advance(5)
    choice = models.promote("m", "b")
    assert choice == models.served("m")
    assert (choice.checkpoint, choice.previous, choice.generation) == ("b", "a", 2)
    assert choice.promoted_at == clock.now
    assert models.choices() == [choice]


def test_promoting_the_present_checkpoint_changes_nothing(models: ModelStore) -> None:
    models.promote("m", "a")
    models.promote("m", "b")
    assert models.promote("m", "b") == models.served("m")
    assert models.previous("m") == "a"


def test_rolling_back_twice_goes_forward_again(models: ModelStore) -> None:
    models.promote("m", "a")
    models.promote("m", "b")
    assert [models.rollback("m").checkpoint for _ in range(2)] == ["a", "b"]
    served = models.served("m")
    assert served is not None
    assert served.generation == 4


def test_a_model_with_one_checkpoint_has_nothing_to_roll_back_to(models: ModelStore) -> None:
    models.promote("m", "a")
    with pytest.raises(Conflict, match="nothing to roll back to"):
        models.rollback("m")


def test_replicas_live_as_long_as_they_beat(models: ModelStore, clock: Clock) -> None:
    models.heartbeat("r1", "m", None, "no such checkpoint")
    models.heartbeat("r2", "m", "a")
    models.heartbeat("r3", "other", "a")
    assert [(replica.id, replica.checkpoint) for replica in models.live_replicas("m")] == [("r1", None), ("r2", "a")]
    clock.advance(REPLICA_TTL_S - 1)
    models.heartbeat("r2", "m", "b")
    clock.advance(2)
    (replica,) = models.live_replicas("m")
    assert (replica.id, replica.checkpoint, replica.error) == ("r2", "b", None)
    models.retire("r2")
    assert models.live_replicas("m") == []
