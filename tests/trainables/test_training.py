"""The epoch loop, its results and checkpoints: exact resumption, and damaged or forged files."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from members import member
from pyarrow import fs

from trainables.checkpoint import (
    MOMENTS,
    CheckpointFile,
    _sha256,
    only,
    read_checkpoint,
    read_header,
    write_checkpoint,
)
from trainables.config import TrainingConfig
from trainables.data import DATASETS, Images, load
from trainables.training import CohortTraining, resolve_device, train

DIGITS = load("digits", Path("nowhere"))
FEW = Images(train=DIGITS.train[:40], validation=DIGITS.validation[:20])
TINY = {"batch_size": 16, "encoder": {"name": "mlp", "hidden": [4]}, "decoder": {"name": "mlp", "hidden": [4]}}


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """Trains on 40 digits only."""
    monkeypatch.setitem(DATASETS, "digits", lambda data_dir: FEW)
    load.cache_clear()
    yield
    load.cache_clear()


def lr(config: TrainingConfig, value: float) -> TrainingConfig:
    return config.model_copy(update={"optim": config.optim.model_copy(update={"lr": value})})


def pair(family: str = "categorical", estimator: str = "decoupled_st_gs", epochs: int = 4, **changes):
    return [member(family, estimator, epochs=epochs, seed=seed, **(TINY | changes)) for seed in (0, 1)]


def training(configs=None, **options) -> CohortTraining:
    return CohortTraining(configs or pair(), device="cpu", data_dir=Path("nowhere"), **options)


def advance(training: CohortTraining, epochs: int) -> CohortTraining:
    for _, _ in zip(range(epochs), training, strict=False):
        pass
    return training


def fingerprint(training: CohortTraining) -> dict:
    """All state that a checkpoint restores, for exact comparison."""
    tensors = training.cohort.members.state()
    return {
        "epoch": training.cohort.epoch,
        "wall_s": training.wall_s,
        "history": {name: values.tobytes() for name, values in training.history().items()},
        "state": {name: value.numpy().tobytes() for name, value in tensors.items()},
    }


# --- results ---------------------------------------------------------------------------------------------------------


def test_results_in_the_order_of_the_configurations_with_mixed_shapes():
    wide = member(epochs=2, **(TINY | {"encoder": {"name": "mlp", "hidden": [5]}}))
    configs = [pair(epochs=2)[0], wide, pair(epochs=2)[1]]
    results = train(configs)
    assert [result.key for result in results] == [config.key() for config in configs]
    for result in results:
        assert (result.status, result.reason, result.epochs) == ("finished", None, 2)
        assert {name: values[-1] for name, values in result.history.items()} == result.metrics
        assert {len(values) for values in result.history.values()} == {2}
        assert result.wall_s > 0
    assert results[1].state["encoder.1.weight"].shape == (5, 64)
    assert all(value.device.type == "cpu" and not value.requires_grad for value in results[0].state.values())


def test_numbers_do_not_depend_on_who_else_is_trained():
    together = train([*pair(epochs=2), member(epochs=2, batch_size=20)])
    for config, result in zip(pair(epochs=2), together, strict=False):
        (alone,) = train([config])
        assert result.metrics == pytest.approx(alone.metrics, rel=1e-4)


def test_training_twice_gives_the_same_bits():
    first, second = (fingerprint(advance(training(), 2)) | {"wall_s": 0.0} for _ in range(2))
    other = fingerprint(advance(training(pair(batch_size=20)), 2)) | {"wall_s": 0.0}
    assert first == second
    assert first != other


def test_a_diverged_member_is_a_failed_result_with_its_reason():
    first, second = pair()
    well, ill = train([first, lr(second, 1e30)])
    assert (well.status, well.reason, well.epochs) == ("finished", None, 4)
    assert (ill.status, ill.reason, ill.epochs) == ("failed", "diverged", 1)
    assert ill.metrics == {}
    assert {len(values) for values in ill.history.values()} == {0}
    assert all(np.isfinite(list(values)).all() for values in well.history.values())


def test_the_history_of_a_member_ends_before_its_divergence():
    run = advance(training(), 2)
    run.cohort.members.groups["encoder"].flat[1] = torch.nan
    advance(run, 2)
    well, ill = run.results()
    assert (ill.status, ill.reason, ill.epochs) == ("failed", "diverged", 3)
    assert ill.metrics == {}
    assert {len(values) for values in ill.history.values()} == {2}
    assert np.isfinite(list(ill.history.values())).all()
    assert well.status == "finished"


def test_a_cohort_of_diverged_members_stops():
    run = training([lr(config, 1e30) for config in pair()])
    assert list(run) == [1]
    assert [result.status for result in run.results()] == ["failed", "failed"]


def test_history_since_an_epoch():
    run = advance(training(), 3)
    whole, part = run.history(), run.history(since=2)
    for name, values in whole.items():
        assert values.shape == (3, 2)
        assert np.array_equal(part[name], values[2:])
    assert run.history(since=3) == {}


def test_resolve_device():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")


# --- resumption ------------------------------------------------------------------------------------------------------

RESUMED = {
    "plain": pair(),
    "running baseline": pair("bernoulli", "reinforce"),
    "guide, frozen on the way": pair(guide={"annealing_rate": 0.4, "freeze_epoch": 3}),
    "radam": pair(optim={"name": "radam", "lr": 1e-3, "beta2": 0.9}),
    "temperature schedule": pair(estimator={"name": "decoupled_st_gs", "temperature_forward_end": 0.5}),
    "a diverged member": [pair()[0], lr(pair()[1], 1e30)],
    "not packed": pair("gaussian", "reparameterization", encoder={"name": "conv3", "channels": 2}),
    "diagnosed": pair(diagnostics={"gradient_gap": [1, 3]}),
}


@pytest.mark.parametrize("name", sorted(RESUMED))
@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_a_restored_training_goes_on_as_if_nothing_had_happened(name, epochs):
    whole = advance(training(RESUMED[name]), 4)
    saved = advance(training(RESUMED[name]), epochs).checkpoint()
    restored = training(RESUMED[name])
    restored.restore(saved)
    assert restored.cohort.epoch == epochs
    assert list(restored) == list(range(epochs + 1, 5))
    assert fingerprint(restored) | {"wall_s": 0.0} == fingerprint(whole) | {"wall_s": 0.0}
    for ours, theirs in zip(restored.results(True), whole.results(True), strict=True):
        assert str(dataclasses.replace(ours, wall_s=0.0)) == str(dataclasses.replace(theirs, wall_s=0.0))
        assert ours.state.keys() == theirs.state.keys()


def test_a_checkpoint_adds_up_the_wall_time():
    run = advance(training(), 2)
    restored = training()
    restored.restore(run.checkpoint())
    assert restored.wall_s == run.wall_s > 0
    advance(restored, 1)
    assert restored.wall_s > run.wall_s


def test_training_on_does_not_change_a_checkpoint_already_taken():
    run = advance(training(), 1)
    saved = run.checkpoint()
    copied = bytes(saved)
    advance(run, 1)
    assert saved == copied
    assert run.checkpoint() != saved


# --- checkpoints of trainings that have ended -------------------------------------------------------------------------


def of_before(training: CohortTraining) -> bytes:
    """The checkpoint of an ended training in the older form, with the optimizers' moments."""
    header, tensors = read_checkpoint(training.checkpoint())
    text = header.model_dump(exclude={"removed", "moments"})
    state = {name: value for name, value in training.cohort.members.state().items() if name.startswith(MOMENTS)}
    text = json.dumps(text)
    return safetensors.torch.save(
        tensors | state, metadata={"training": text, "sha256": _sha256(text, tensors | state)}
    )


@pytest.fixture(scope="module")
def ended() -> CohortTraining:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "digits", lambda data_dir: FEW)
        load.cache_clear()
        return advance(training(pair("bernoulli", "reinforce")), 4)


def results(training: CohortTraining) -> list[str]:
    return [str(dataclasses.replace(result, wall_s=0.0)) + repr(result.state) for result in training.results(True)]


def test_an_ended_training_saves_weights_alone(ended):
    on_the_way = read_checkpoint(advance(training(pair("bernoulli", "reinforce")), 3).checkpoint())[1]
    at_the_end = read_checkpoint(ended.checkpoint())[1]
    assert sorted(on_the_way.keys() - at_the_end.keys()) == sorted(
        f"{moment}/{group}" for moment in ("mean", "square") for group in ("encoder", "decoder")
    )
    assert len(read_checkpoint(of_before(ended))[1]) == len(on_the_way)


@pytest.mark.parametrize("write", [CohortTraining.checkpoint, of_before], ids=["now", "before"])
def test_an_ended_training_gives_its_results_again(ended, write):
    again = training(pair("bernoulli", "reinforce"))
    again.restore(write(ended))
    assert list(again) == []
    assert results(again) == results(ended)


def test_a_training_does_not_go_on_without_moments(saved):
    header, tensors = read_checkpoint(saved)
    alone = {name: value for name, value in tensors.items() if not name.startswith(MOMENTS)}
    forgery = write_checkpoint(header.model_copy(update={"moments": False}), alone)
    with pytest.raises(ValueError, match="no optimizer state, but its training has not ended"):
        training().restore(forgery)


def test_a_cohort_of_diverged_members_has_ended():
    configs = [lr(config, 1e30) for config in pair()]
    run = training(configs)
    list(run)
    again = training(configs)
    again.restore(run.checkpoint())
    assert list(again) == []
    assert [result.reason for result in again.results()] == ["diverged", "diverged"]


def test_a_kill_while_the_last_checkpoint_is_written_costs_what_came_after_the_one_before(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    class UntilTheMove(fs.LocalFileSystem):
        def move(self, src, dest):
            raise Killed

    whole, run, file = advance(training(), 4), training(), CheckpointFile(str(tmp_path), "members")
    file.write(advance(run, 3).checkpoint())
    advance(run, 1)
    with monkeypatch.context() as patch:
        patch.setattr(file, "_fs", UntilTheMove())
        with pytest.raises(Killed):
            file.write(run.checkpoint())
    again = training()
    again.restore(file.read())
    assert list(again) == [4]
    assert results(again) == results(whole)
    file.write(again.checkpoint())
    last = training()
    last.restore(file.read())
    assert list(last) == []
    assert results(last) == results(whole)


def test_only_the_wanted_members_are_kept(ended):
    first, second = ended.keys
    for content in (ended.checkpoint(), of_before(ended)):
        kept = only(content, {second, "of another cohort"})
        header, tensors = read_checkpoint(kept)
        assert (header.holds(first), header.holds(second), header.moments) == (False, True, False)
        assert header.member(second) == 0
        for name, value in ended.cohort.members.state().items():
            assert name.startswith(MOMENTS) == (name not in tensors)
            assert name.startswith(MOMENTS) or torch.equal(tensors[name], value[1:])
        with pytest.raises(ValueError, match="members were removed"):
            training(pair("bernoulli", "reinforce")).restore(kept)
        assert only(kept, {first}) is None
        assert read_checkpoint(only(kept, {second}))[0] == header
    everyone = training(pair("bernoulli", "reinforce"))
    everyone.restore(only(of_before(ended), ended.keys))
    assert results(everyone) == results(ended)


def test_the_header_is_read_without_the_tensors(saved):
    asked = []

    def first(count: int) -> bytes:
        asked.append(count)
        return saved[:count]

    assert read_header(first) == read_checkpoint(saved)[0]
    assert max(asked) < len(saved) / 2
    for content in (b"", b"not a checkpoint", b"\xff" * 100, saved[:100]):
        with pytest.raises(ValueError, match="not a training checkpoint"):
            read_header(lambda count, content=content: content[:count])


# --- damaged and forged checkpoints ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved() -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "digits", lambda data_dir: FEW)
        load.cache_clear()
        return advance(training(), 2).checkpoint()


@pytest.fixture(scope="module")
def target() -> CohortTraining:
    """The training that must refuse every bad checkpoint and stay unchanged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "digits", lambda data_dir: FEW)
        load.cache_clear()
        return advance(training(), 1)


def refused(target: CohortTraining, checkpoint: bytes) -> str:
    """The line that refuses a checkpoint; asserts that the target stays unchanged."""
    before = fingerprint(target)
    with pytest.raises(ValueError, match=r"checkpoint|state") as info:
        target.restore(checkpoint)
    assert "\n" not in str(info.value)
    assert len(str(info.value)) < 200
    assert fingerprint(target) == before
    return str(info.value)


FUZZ = settings(max_examples=100, deadline=None, derandomize=True)


@FUZZ
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(target, data):
    refused(target, data)


@FUZZ
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_checkpoint_is_refused(target, saved, share):
    refused(target, saved[: int(share * len(saved))])


def test_a_lengthened_checkpoint_is_refused(target, saved):
    refused(target, saved + b"\0")


def content(checkpoint: bytes) -> tuple[bytes, bytes, bytes]:
    """A checkpoint in three parts, without the white space that pads its header."""
    end = 8 + int.from_bytes(checkpoint[:8], "little")
    return checkpoint[:8], checkpoint[8:end].rstrip(), checkpoint[end:]


@FUZZ
@given(data=st.data())
def test_a_damaged_checkpoint_is_refused(target, saved, data):
    at = data.draw(st.integers(0, len(saved) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=8))
    damaged = saved[:at] + patch + saved[at + len(patch) :]
    assume(content(damaged) != content(saved))
    refused(target, damaged)


@FUZZ
@given(
    metadata=st.none()
    | st.dictionaries(st.sampled_from(["training", "sha256", "x"]), st.text(max_size=20))
    | st.fixed_dictionaries(
        {
            "training": st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["format", "keys", "epoch", "wall_s", "metrics"]), inner)
                ),
                max_leaves=8,
            ).map(json.dumps)
        }
    )
)
def test_other_safetensors_files_are_refused(target, metadata):
    refused(target, safetensors.torch.save({"a": torch.zeros(3)}, metadata=metadata))


def forged(saved: bytes, *, drop: str | None = None, put: dict | None = None, **changes) -> bytes:
    """A checkpoint with changed content and a correct checksum."""
    header, tensors = read_checkpoint(saved)
    tensors = {name: value for name, value in tensors.items() if name != drop} | (put or {})
    text = json.dumps(header.model_dump() | changes)
    return safetensors.torch.save(tensors, metadata={"training": text, "sha256": _sha256(text, tensors)})


def test_a_forged_checkpoint_without_changes_is_taken(saved):
    run = training()
    run.restore(forged(saved))
    assert run.cohort.epoch == 2


NAME = "group/encoder"


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"keys": ["a", "b"]},
        {"keys": "ab"},
        {"epoch": -1},
        {"epoch": 1},
        {"epoch": 2.5},
        {"epoch": "2"},
        {"epoch": 10**30},
        {"wall_s": "long"},
        {"wall_s": -1.0},
        {"wall_s": float("nan")},
        {"extra": 1},
        {"drop": NAME},
        {"drop": "diverged_epoch"},
        {"put": {"more": torch.zeros(2)}},
        {"put": {NAME: torch.zeros(2, 3)}},
        {"put": {NAME: torch.zeros(2, 272, dtype=torch.float64)}},
        {"put": {"diverged_epoch": torch.zeros(2)}},
        {"put": {"history/kl": torch.zeros(2)}},
        {"put": {"history/kl": torch.zeros(3, 2, dtype=torch.float64)}},
        {"put": {"history/kl": torch.zeros(2, 2, dtype=torch.float32)}},
        {"drop": "history/kl"},
        {"metrics": []},
        {"metrics": ["kl", "no such"]},
    ],
    ids=str,
)
def test_a_forged_checkpoint_is_refused(target, saved, changes):
    refused(target, forged(saved, **changes))


def test_a_checkpoint_of_other_members_is_refused(target):
    line = refused(target, advance(training(pair(batch_size=20)), 1).checkpoint())
    assert line == "the checkpoint belongs to other members"
    refused(target, advance(training(pair()[::-1]), 1).checkpoint())


def test_a_checkpoint_of_another_dtype_is_refused(target):
    refused(target, advance(training(dtype=torch.float64), 1).checkpoint())


def test_no_code_of_a_checkpoint_is_executed(target, tmp_path):
    witness = tmp_path / "witness"

    class Hostile:
        def __reduce__(self):
            return open, (str(witness), "w")

    buffer = io.BytesIO()
    torch.save({"state": Hostile()}, buffer)
    refused(target, buffer.getvalue())
    assert not witness.exists()
    buffer.seek(0)
    torch.load(buffer, weights_only=False)
    assert witness.exists()  # an unsafe loader executes it
