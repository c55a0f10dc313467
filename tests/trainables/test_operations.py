"""The count of operations, compared with PyTorch's count of a forward and backward pass."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from trainables.config import TrainingConfig
from trainables.cost import operations as counting
from trainables.cost.operations import Operations, operations
from trainables.cost.size import checkpoint_bytes
from trainables.cost.timing import Rate
from trainables.data.sizes import Size
from trainables.objective import VAE, epoch_knobs, training_loss

GAUSSIAN = {"family": "gaussian", "size": 16}
CATEGORICAL = {"family": "categorical", "size": 4, "categories": 8}
MLP = {
    "latent": CATEGORICAL,
    "encoder": {"name": "mlp", "hidden": (32, 16)},
    "decoder": {"name": "mlp", "hidden": (16, 32)},
    "likelihood": {"name": "bernoulli"},
    "data": {"pixels": "unit"},
    "estimator": {"name": "gumbel_softmax"},
    "optim": {"name": "adam"},
    "batch_size": 8,
    "epochs": 3,
}
LINEAR = MLP | {
    "latent": GAUSSIAN,
    "decoder": {"name": "linear"},
    "likelihood": {"name": "gaussian_precision"},
    "estimator": {"name": "silent"},
    "data": {"pixels": "dequantize"},
}
STRIDED = LINEAR | {
    "encoder": {"name": "strided"},
    "decoder": {"name": "strided"},
    "likelihood": {"name": "gaussian_log_scale"},
    "estimator": {"name": "reparameterization"},
}
RESIDUAL = MLP | {
    "latent": {"family": "bernoulli", "size": 128},
    "encoder": {"name": "residual"},
    "decoder": {"name": "residual"},
    "estimator": {"name": "straight_through"},
}
DUAL = LINEAR | {"encoder": {"name": "conv3"}}


def of_estimator(name: str) -> dict:
    return MLP | {"estimator": {"name": name}}


def by_pytorch(config: TrainingConfig, image_shape: tuple[int, int, int]) -> int:
    """The floating-point operations of one step, counted while it runs."""
    model = VAE(config, image_shape)
    x = torch.rand(config.batch_size, *image_shape)
    noise = torch.rand(config.estimator.noise_shape((config.batch_size, *config.latent.z_shape)))
    knobs = {path: torch.tensor(value) for path, value in config.knobs().items()} | {"running_loss": torch.zeros(())}
    tensors = dict(model.state_dict(keep_vars=True))
    with FlopCounterMode(display=False) as counter:
        training_loss(config, model, tensors, x, noise, epoch_knobs(config, knobs, 1)).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("settings", "image_shape"),
    [
        (of_estimator("gumbel_softmax"), (1, 8, 8)),
        (of_estimator("straight_through"), (1, 8, 8)),
        (of_estimator("reinmax"), (1, 8, 8)),
        (of_estimator("decoupled_st_gs"), (1, 8, 8)),
        (LINEAR, (1, 8, 8)),
        (LINEAR | {"latent": CATEGORICAL}, (1, 8, 8)),
        (DUAL, (1, 28, 28)),
        (STRIDED, (3, 32, 32)),
        (STRIDED | {"guide": {"annealing_rate": 0.1}, "precision": "bf16"}, (3, 32, 32)),
        (RESIDUAL, (3, 32, 32)),
    ],
    ids=lambda value: value.get("estimator", {}).get("name") if isinstance(value, dict) else str(value[0]),
)
def test_a_step_counts_what_pytorch_counts(settings, image_shape):
    config = TrainingConfig.model_validate(settings)
    found = operations(config, image_shape)
    assert found.step == by_pytorch(config.model_copy(update={"precision": "float32"}), image_shape)
    assert 2 * found.evaluation < found.step < 3 * found.evaluation  # the gradient of the pixels is not needed


@pytest.mark.parametrize(("name", "excess"), [("reinforce", 1.05), ("rloo", 1.05), ("rebar", 1.3)])
def test_products_of_which_no_gradient_is_taken_count_a_little_too_much(name, excess):
    config = TrainingConfig.model_validate(of_estimator(name))
    assert 1 <= operations(config, (1, 8, 8)).step / by_pytorch(config, (1, 8, 8)) < excess


@pytest.mark.parametrize(
    ("guide", "guided"),
    [
        ({}, 12),
        ({"annealing_rate": 0.25}, 3),  # its weight is 0 from epoch 4
        ({"annealing_rate": 0.3}, 3),
        ({"annealing_rate": 0.01}, 12),
        ({"freeze_epoch": 6}, 5),
        ({"freeze_epoch": 1}, 0),
        ({"annealing_rate": 0.1, "freeze_epoch": 20}, 9),
        ({"annealing_rate": 3.0, "anneal": "loss"}, 0),
    ],
)
def test_the_guide_counts_only_in_the_epochs_that_train_it(guide, guided):
    size, epochs = Size((3, 32, 32), 33, 16), 12
    settings = STRIDED | {"latent": {"family": "gaussian", "size": 256}, "epochs": epochs}
    plain = TrainingConfig.model_validate(settings)
    config = TrainingConfig.model_validate(settings | {"guide": guide})
    knobs = {path: torch.tensor(value) for path, value in config.knobs().items()}
    over = [epoch_knobs(config, knobs, epoch)["guide.over"].item() for epoch in range(1, epochs + 1)]
    assert over == [0.0] * guided + [1.0] * (epochs - guided)

    # After its end a step is one of the same configuration without a guide.
    with_guide, without = by_pytorch(config, size.image_shape), by_pytorch(plain, size.image_shape)
    assert with_guide > 1.05 * without
    found = operations(config, size.image_shape)
    evaluations = epochs * 2 * found.evaluation
    expected = 5 * (guided * with_guide + (epochs - guided) * without)
    assert found.of_training(config, size) - evaluations == expected
    seconds = Rate(step_s=with_guide, evaluation_s=0, members=1).seconds(config, size)
    assert seconds == pytest.approx(expected, rel=1e-9)


def test_operations_grow_with_the_batch_and_a_training_counts_all_its_batches():
    one, two = (TrainingConfig.model_validate(MLP | {"batch_size": size}) for size in (8, 16))
    assert operations(two, (1, 8, 8)).step == 2 * operations(one, (1, 8, 8)).step
    # 5 batches to train on and 2 to evaluate, in each of 3 epochs.
    assert Operations(step=7, evaluation=2).of_training(one, Size((1, 8, 8), 33, 16)) == 3 * (5 * 7 + 2 * 2)
    limited = TrainingConfig.model_validate(MLP | {"data": {"pixels": "unit", "limit": 8}})
    assert Operations(step=7, evaluation=2).of_training(limited, Size((1, 8, 8), 33, 16)) == 3 * (7 + 2)


def test_a_network_that_does_not_go_with_the_images_is_refused():
    with pytest.raises(ValueError, match="32"):
        operations(TrainingConfig.model_validate(STRIDED), (1, 8, 8))


@pytest.mark.parametrize("settings", [MLP, LINEAR, MLP | {"estimator": {"name": "gumbel_rao", "k": 4}}], ids=str)
def test_counts_are_the_same_with_and_without_memory(settings, monkeypatch):
    config = TrainingConfig.model_validate(settings)
    in_memory = counting._counted(config, (1, 8, 8))
    monkeypatch.setattr(counting, "_IN_MEMORY", 0)
    assert counting._counted(config, (1, 8, 8)) == in_memory


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        ({"latent": {"family": "categorical", "size": 10**9}}, 10**12),
        ({"estimator": {"name": "rloo", "k": 10**9}}, 10**12),
        ({"estimator": {"name": "gumbel_rao", "k": 10**10 // 8}}, 10**5),  # decodes one of its codes
        ({"batch_size": 2**31 - 1}, 10**12),
    ],
    ids=str,
)
def test_a_network_larger_than_all_memory_is_counted_without_memory(changes, least):
    config = TrainingConfig.model_validate(MLP | changes)
    assert operations(config, (1, 8, 8)).step > least


def test_a_network_of_more_bytes_than_can_be_counted_is_refused_in_one_line():
    config = TrainingConfig.model_validate(
        MLP | {"latent": {"family": "categorical", "size": 2**31 - 1, "categories": 2**31 - 1}}
    )
    for count in (operations, checkpoint_bytes):
        with pytest.raises(ValueError, match=r"^the network cannot be built: .+$"):
            count(config, (1, 8, 8))


def test_counting_imports_no_compiler():
    code = (
        "import sys; from trainables.config import TrainingConfig; from trainables.cost.operations import operations; "
        f"operations(TrainingConfig.model_validate({STRIDED!r}), (3, 32, 32)); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
