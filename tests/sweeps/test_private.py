"""The private parts of Ray that we use: if a new version of Ray moves one, a test names what fails without it."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError

from sweeps.on_ray import private
from sweeps.on_ray.authentication import own_token
from trainables import ray_train


@pytest.fixture(scope="module")
def connected():
    with own_token(None):  # a process keeps its way of authentication, and other tests run sweeps in it
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
        yield
        ray.shutdown()


def test_the_node_of_this_process_without_which_no_run_starts(connected):
    node = private.this_node()
    assert node.is_head
    assert node.head == node.address == ray.util.get_node_ip_address()
    assert list(node.logs.glob("*.log"))


def test_the_head_at_an_address_without_which_a_run_joins_no_cluster(connected):
    head = ray.get_runtime_context().gcs_address
    assert private.head_of(head) == head
    private.admitted(head)


def test_the_variables_that_tune_hands_on_without_which_credentials_get_into_logs():
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

    assert "AWS_SECRET_ACCESS_KEY" in ENV_VARS_TO_PROPAGATE
    try:
        private.keep_from_trials(("AWS_SECRET_ACCESS_KEY",))
        assert "AWS_SECRET_ACCESS_KEY" not in ENV_VARS_TO_PROPAGATE
    finally:
        ENV_VARS_TO_PROPAGATE.add("AWS_SECRET_ACCESS_KEY")


def test_the_key_value_store_without_which_an_interrupted_run_saves_nothing(connected):
    asked = ray.remote(ray_train.asked_to_stop)
    assert not ray.get(asked.remote("run"))
    ray_train.ask_to_stop("run")
    assert ray.get(asked.remote("run"))
    assert not ray.get(asked.remote("another run"))
    ray_train.forget_stop("run")
    assert not ray.get(asked.remote("run"))


def test_the_end_of_a_trial_that_ray_killed_for_memory_without_which_the_whole_run_ends():
    private.survive_memory_kills()
    private.survive_memory_kills()  # replaces it once
    told = []
    task = SimpleNamespace(
        _tracked_actor=SimpleNamespace(actor_id=1, _on_error=None), _on_error=lambda _, error: told.append(error)
    )
    manager = RayActorManager(resource_manager=SimpleNamespace())
    manager._cleanup_actor = lambda tracked_actor: None
    manager._actor_task_failed(tracked_actor_task=task, exception=OutOfMemoryError("nearly full"))
    (error,) = told
    assert isinstance(pickle.loads(pickle.dumps(error)), private.KilledForMemoryError)  # Tune keeps it in a file
    assert str(error) == "nearly full"
    actor = SimpleNamespace(actor_id=2, _on_error=task._on_error)
    manager._actor_start_failed(tracked_actor=actor, exception=OutOfMemoryError("full"))
    assert isinstance(told[1], private.KilledForMemoryError)
    with pytest.raises(RuntimeError, match="unexpected"):
        manager._actor_task_failed(tracked_actor_task=task, exception=ValueError("another error"))


def test_nothing_else_of_ray_that_is_private_is_imported():
    root = Path(__file__).parents[2]
    lines = [
        f"{path.relative_to(root)}: {line.strip()}"
        for package in ("sweeps", "trainables")
        for path in (root / package).rglob("*.py")
        for line in path.read_text().splitlines()
        if "import" in line
        and ("ray._" in line or "._internal" in line or "internal_kv" in line or "class_cache" in line)
    ]
    assert {line.partition(":")[0] for line in lines} == {"sweeps/on_ray/private.py", "trainables/ray_train.py"}
