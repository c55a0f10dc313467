"""Encoders and decoders: the papers' tables, one contract for all, and batch normalization in cohorts."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from torch.testing import assert_close

from trainables.config import TrainingConfig
from trainables.data import Images
from trainables.models import DECODERS, ENCODERS
from trainables.models.conv import StridedDecoder, StridedEncoder
from trainables.models.linear import Linear
from trainables.models.normalization import BatchNorm
from trainables.models.residual import ResidualDecoder, ResidualEncoder
from trainables.packing.cohort import Cohort

# Widths that make the networks fast; networks that are not listed are small by default.
SMALL = {
    "conv3": {"channels": 3},
    "conv5": {"channels": 3},
    "strided": {"channels": (3, 4, 5, 6)},
    "residual": {"channels": 4, "blocks": 2},
}
CODE = 16  # fills the residual networks' 2 x 2 grid for 8 x 8 images; the paper's code is 8 x 8 x 32


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def image_shape(name):
    return (3, 32, 32) if name == "strided" else (3, 8, 8)


def encoder(name):
    return ENCODERS[name].model_copy(update=SMALL.get(name, {})).build(image_shape(name), CODE)


def decoder(name, outputs=2):
    return DECODERS[name].model_copy(update=SMALL.get(name, {})).build(CODE, image_shape(name), outputs)


# --- the papers' tables ----------------------------------------------------------------------------------------------

# SG Tables 5 to 8: layer, kernel, stride, padding. Activations have separate rows here.
TABLE_5 = [("Conv2d", 3, 1, 1), "ReLU", ("Conv2d", 3, 1, 1), "ReLU", ("Conv2d", 3, 1, 1), "Flatten", "Linear"]
TABLE_6 = ["Linear", "Unflatten", *[("Conv2d", 3, 1, 1), "ReLU"] * 4, ("Conv2d", 1, 1, 0)]
TABLE_7 = [
    *[("Conv2d", 4, 2, 1), "ReLU", "BatchNorm"] * 3,
    *[("Conv2d", 4, 1, 0), "ReLU", "BatchNorm"],
    *["Flatten", "Linear"],
]
TABLE_8 = [
    *["Linear", "Unflatten"],
    *[("ConvTranspose2d", 4, 1, 0), "ReLU", "BatchNorm"],
    *[("ConvTranspose2d", 4, 2, 1), "ReLU", "BatchNorm"] * 2,
    ("ConvTranspose2d", 4, 2, 1),
]


def row(layer):
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        (kernel, *_), (stride, *_), (padding, *_) = layer.kernel_size, layer.stride, layer.padding
        return type(layer).__name__, kernel, stride, padding
    return type(layer).__name__


@pytest.mark.parametrize(
    ("network", "table"),
    [
        pytest.param(ENCODERS["conv3"].build((1, 28, 28), 200), TABLE_5, id="Table 5"),
        pytest.param(DECODERS["conv5"].build(200, (1, 28, 28), 2), TABLE_6, id="Table 6"),
        pytest.param(ENCODERS["strided"].build((3, 32, 32), 200), TABLE_7, id="Table 7"),
        pytest.param(DECODERS["strided"].build(200, (3, 32, 32), 2), TABLE_8, id="Table 8"),
    ],
)
def test_layers_are_those_of_silent_gradients(network, table):
    layers = [row(layer) for layer in network]
    assert layers[: len(table)] == table
    # The other layers only reshape the output to [N, outputs, D].
    assert layers[len(table) :] in ([], ["Flatten", "Unflatten"])


def test_a_strided_encoder_ends_in_a_single_position():
    network = ENCODERS["strided"].build((3, 32, 32), 10)
    assert network[:-2](torch.zeros(2, 3, 32, 32)).shape == (2, 256, 1, 1)


@pytest.mark.parametrize("name", sorted(ENCODERS.keys() & DECODERS.keys()))
def test_networks_fit_images_that_are_not_square(name):
    shape, features = (3, 40, 56), 2 * 10 * 14  # fills the residual networks' grid
    to_code, from_code = (parts[name].model_copy(update=SMALL.get(name, {})) for parts in (ENCODERS, DECODERS))
    assert to_code.build(shape, features)(torch.zeros(2, *shape)).shape == (2, features)
    assert from_code.build(features, shape, 2)(torch.zeros(2, features)).shape == (2, 2, 3 * 40 * 56)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 24, 32), (3, 36, 36)])
def test_strided_networks_refuse_other_sizes(shape):
    with pytest.raises(ValueError, match="multiples of 8 and at least 32"):
        StridedEncoder().build(shape, 10)
    with pytest.raises(ValueError, match="multiples of 8 and at least 32"):
        StridedDecoder().build(10, shape, 1)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_residual_codes_are_8_by_8_by_32(shape):
    to_code = ResidualEncoder(channels=4).build(shape, 2048)
    from_code = ResidualDecoder(channels=4).build(2048, shape, 1)
    assert to_code[:-1](torch.zeros(2, *shape)).shape == (2, 32, 8, 8)
    assert from_code[0](torch.zeros(2, 2048)).shape == (2, 32, 8, 8)
    assert from_code(torch.zeros(2, 2048)).shape == (2, 1, np.prod(shape))


def test_residual_codes_are_a_quarter_of_the_padded_size():
    shape = (1, 72, 33)  # padded to 72 x 40
    to_code = ResidualEncoder(channels=4).build(shape, 5 * 18 * 10)
    from_code = ResidualDecoder(channels=4).build(5 * 18 * 10, shape, 1)
    assert to_code[:-1](torch.zeros(2, *shape)).shape == (2, 5, 18, 10)
    assert from_code(torch.zeros(2, 5 * 18 * 10)).shape == (2, 1, 72 * 33)


def convolutions(network):
    """Weight and bias of each convolution, in the order of application."""
    return [(m.weight, m.bias) for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


def two_blocks(x, weights):
    """Two residual blocks: x + 1x1(ReLU(3x3(ReLU(x))))."""
    for (w3, b3), (w1, b1) in (weights[:2], weights[2:]):
        inner = F.conv2d(x.relu(), w3, b3, padding=1)
        x = x + F.conv2d(inner.relu(), w1, b1)
    return x


def test_the_residual_encoder_is_that_of_van_den_oord_with_two_blocks():
    network = ResidualEncoder(channels=4).build((1, 8, 8), CODE)
    first, second, *blocks, last = convolutions(network)
    assert len(blocks) == 4
    x = torch.randn(3, 1, 8, 8)
    y = F.conv2d(x, *first, stride=2, padding=1).relu()
    y = two_blocks(F.conv2d(y, *second, stride=2, padding=1), blocks)
    assert_close(network(x), F.conv2d(y.relu(), *last).flatten(1))


def test_the_residual_decoder_mirrors_it():
    network = ResidualDecoder(channels=4).build(CODE, (1, 8, 8), 1)
    first, *blocks, second, last = convolutions(network)
    assert len(blocks) == 4
    z = torch.randn(3, CODE)
    y = two_blocks(F.conv2d(z.unflatten(1, (4, 2, 2)), *first), blocks).relu()
    y = F.conv_transpose2d(y, *second, stride=2, padding=1).relu()
    assert_close(network(z).flatten(1), F.conv_transpose2d(y, *last, stride=2, padding=1).flatten(1))


def test_residual_padding_is_cut_off_where_it_was_added():
    pad, crop = ResidualEncoder().build((1, 28, 27), 2048)[0], ResidualDecoder().build(2048, (1, 28, 27), 1)[-3]
    x = torch.randn(2, 1, 28, 27)
    assert pad(x).shape == (2, 1, 32, 32)
    assert torch.equal(crop(pad(x)), x)


def test_residual_networks_refuse_features_that_leave_the_grid_uneven():
    with pytest.raises(ValueError, match="grid of 8 x 8 positions evenly, got 200"):
        ResidualEncoder().build((1, 28, 28), 200)
    with pytest.raises(ValueError, match="grid of 8 x 8 positions evenly, got 200"):
        ResidualDecoder().build(200, (3, 32, 32), 1)


def test_the_mlp_is_that_of_decoupled_st_gs():
    network = ENCODERS["mlp"].build((1, 28, 28), 32)
    assert [(m.in_features, m.out_features) for m in network if isinstance(m, nn.Linear)] == [
        (784, 512),
        (512, 256),
        (256, 32),
    ]
    network = DECODERS["mlp"].build(32, (1, 28, 28), 1)
    assert [(m.in_features, m.out_features) for m in network if isinstance(m, nn.Linear)] == [
        (32, 256),
        (256, 512),
        (512, 784),
    ]


def test_the_precision_of_a_linear_decoder_starts_at_1_for_every_code():
    network = Linear(CODE, 6, outputs=2)
    mean, precision = network(100 * torch.randn(4, CODE)).unbind(1)
    assert torch.equal(precision, torch.ones(4, 6))
    assert (mean[0] != mean[1]).all()


@pytest.mark.parametrize("name", sorted(DECODERS.keys() - {"linear"}))
def test_the_scale_of_every_other_decoder_starts_at_1_for_every_code(name):
    mean, log_scale = decoder(name)(100 * torch.randn(4, CODE)).unbind(1)
    assert torch.equal(log_scale, torch.zeros_like(log_scale))
    assert (mean[0] != mean[1]).any()
    last = [m for m in decoder(name).modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)][-1]
    weight = last.weight.transpose(0, 1) if isinstance(last, nn.ConvTranspose2d) else last.weight
    for mean_part, scale_part in (weight.chunk(2), last.bias.chunk(2)):
        assert (mean_part != 0).all()
        assert (scale_part == 0).all()
    assert (decoder(name, outputs=1)(torch.randn(4, CODE)) != 0).any()


# --- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_encoder_maps_images_to_features(name):
    network = encoder(name)
    y = network(torch.rand(3, *image_shape(name)))
    assert y.shape == (3, CODE)
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("name", sorted(DECODERS))
def test_decoder_maps_codes_to_every_output_of_every_pixel(name, outputs):
    network = decoder(name, outputs)
    y = network(torch.randn(3, CODE))
    assert y.shape == (3, outputs, np.prod(image_shape(name)))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("name", ["conv5", "strided", "residual"])
def test_outputs_of_a_convolutional_decoder_are_whole_images(name):
    network = decoder(name, outputs=2)
    last = next(layer for layer in reversed(network) if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d))
    nn.init.zeros_(last.weight)
    last.bias.data = torch.arange(1.0, 7.0)  # means of the three colours, then their scales
    pixels = np.prod(image_shape(name)[1:])
    expected = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).repeat_interleave(pixels, dim=1)
    assert torch.equal(network(torch.randn(3, CODE)), expected.expand(3, -1, -1))


@pytest.mark.parametrize("build", [encoder, decoder], ids=["encoder", "decoder"])
@pytest.mark.parametrize("name", sorted(ENCODERS.keys() & DECODERS.keys()))
def test_state_dict_restores_a_trained_network(name, build):
    network, other = build(name), build(name)
    x = torch.rand(3, *image_shape(name)) if build is encoder else torch.randn(3, CODE)
    network(x)  # changes the batch normalization's statistics, which must be copied too
    assert not torch.equal(network.eval()(x), other.eval()(x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(x), other(x))


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_linear_is_claimed_by_linear_decoders_alone(name):
    network = decoder(name).double().eval()
    a, b = 10 * torch.randn(2, 5, CODE, dtype=torch.float64)
    together, apart = network(a + b), network(a) + network(b) - network(torch.zeros_like(a))
    assert torch.allclose(together, apart, rtol=1e-9) == DECODERS[name].linear


def config(encoder_name, decoder_name, seed=0, **changes):
    parts = {
        "latent": {"family": "gaussian", "size": CODE},
        "encoder": {"name": encoder_name, **SMALL.get(encoder_name, {})},
        "decoder": {"name": decoder_name, **SMALL.get(decoder_name, {})},
        "likelihood": {"name": "gaussian_fixed", "variance": 0.1},
        "estimator": {"name": "reparameterization"},
        "optim": {"name": "adamw", "lr": 1e-3 * (1 + seed)},
        "epochs": 4,
        "batch_size": 5,
        "seed": seed,
    }
    return TrainingConfig.model_validate(parts | changes)


def random_images(shape, train=15, validation=6):
    pixels = np.random.default_rng(0).integers(0, 256, (train + validation, *shape)).astype(np.uint8)
    return Images(train=pixels[:train], validation=pixels[train:])


# --- batch normalization ---------------------------------------------------------------------------------------------


def batches(steps=4, seed=0):
    # Far from mean 0 and variance 1, so that wrong statistics are seen.
    generator = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(steps, 7, 5, 4, 3, dtype=torch.float64, generator=generator)


def randomized(seed):
    ours = BatchNorm(5).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in ours.parameters():
        parameter.data = torch.randn(5, dtype=torch.float64, generator=generator)
    return ours


def torchs(ours):
    theirs = nn.BatchNorm2d(5).double()
    theirs.load_state_dict(
        {name: value for name, value in ours.state_dict().items() if name != "frozen"}
        | {"num_batches_tracked": torch.tensor(0)}
    )
    return theirs


def close(actual, expected):
    assert_close(actual, expected, rtol=1e-6, atol=1e-12)


def test_batch_norm_equals_torchs():
    ours = randomized(0)
    theirs = torchs(ours)
    for x in batches():
        x = x.requires_grad_()
        y, expected = ours(x), theirs(x)
        close(y, expected)
        close(ours.running_mean, theirs.running_mean)
        close(ours.running_var, theirs.running_var)
        assert not ours.running_mean.requires_grad  # else each step would keep the graphs of all earlier steps
        assert not ours.running_var.requires_grad
        loss, expected_loss = y.square().sum() + y.sin().sum(), expected.square().sum() + expected.sin().sum()
        gradients = torch.autograd.grad(loss, [x, ours.weight, ours.bias])
        close(gradients, torch.autograd.grad(expected_loss, [x, theirs.weight, theirs.bias]))
    ours.eval(), theirs.eval()
    x = batches(1, seed=9)[0]
    close(ours(x), theirs(x))
    # Evaluation differs from training, which normalizes with the batch.
    assert not torch.allclose(ours(x), ours.train()(x), rtol=1e-2)


def test_stacked_batch_norm_equals_torchs_one_by_one():
    members = [randomized(seed) for seed in range(3)]
    theirs = [torchs(member) for member in members]
    parameters, buffers = stack_module_state(members)
    base = copy.deepcopy(members[0])
    for step in range(4):
        x = torch.stack([batches(seed=seed)[step] for seed in range(3)])
        y = vmap(lambda p, b, x: functional_call(base, (p, b), (x,)))(parameters, buffers, x)
        close(y, torch.stack([t(x_) for t, x_ in zip(theirs, x, strict=True)]))
    close(buffers["running_mean"], torch.stack([t.running_mean for t in theirs]))
    close(buffers["running_var"], torch.stack([t.running_var for t in theirs]))


def test_frozen_members_keep_their_statistics_bit_for_bit():
    members = [randomized(seed) for seed in range(3)]
    for member in members:
        member(batches(1)[0])
    parameters, buffers = stack_module_state(members)
    buffers["frozen"] = torch.tensor([False, True, False])
    before = {name: value.clone() for name, value in buffers.items()}
    x = batches(1, seed=5)[0]
    y = vmap(lambda p, b: functional_call(members[0], (p, b), (x,)))(parameters, buffers)
    for name in ("running_mean", "running_var"):
        assert torch.equal(buffers[name][1], before[name][1])
        assert (buffers[name][[0, 2]] != before[name][[0, 2]]).all()
    # A frozen layer normalizes as in evaluation, the others with the batch.
    close(y[1], members[1].eval()(x))
    close(y[0], members[0].train()(x))


def test_batch_norm_refuses_a_single_value_a_channel():
    with pytest.raises(ValueError, match="more than one value a channel"):
        BatchNorm(5)(torch.zeros(1, 5, 1, 1))


def strided_cohort(n=3, dtype=torch.float64, packed=True):
    return Cohort(
        [config("strided", "strided", seed) for seed in range(n)],
        random_images((3, 32, 32)),
        dtype=dtype,
        packed=packed,
    )


def statistics(cohort):
    return {name: value.clone() for name, value in cohort.members.tensors().items() if ".running_" in name}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_statistics_have_the_dtype_of_the_cohort(dtype):
    cohort = strided_cohort(dtype=dtype)
    cohort.train_epoch()
    assert {value.dtype for value in statistics(cohort).values()} == {dtype}
    assert {v.dtype for name, v in cohort.members.tensors().items() if name.endswith(".frozen")} == {torch.bool}


@pytest.mark.parametrize("packed", [True, False])
def test_statistics_move_in_training_and_not_in_evaluation(packed):
    cohort = strided_cohort(packed=packed)
    start = statistics(cohort)
    cohort.train_epoch()
    trained = statistics(cohort)
    assert all((trained[name] != start[name]).any(-1).all() for name in start)  # for every member
    knobs = {path: value.clone() for path, value in cohort._knobs.items()}
    cohort._evaluate(knobs)
    assert all(torch.equal(value, trained[name]) for name, value in statistics(cohort).items())


def test_checkpoints_cover_the_statistics():
    through, first, second = strided_cohort(), strided_cohort(), strided_cohort()
    through.train_epoch()
    expected = through.train_epoch()
    first.train_epoch()
    second.members.load_state(first.members.state(), first.epoch)
    assert all(torch.equal(value, statistics(first)[name]) for name, value in statistics(second).items())
    resumed = second.train_epoch()
    assert {name: values.tolist() for name, values in resumed.items()} == {
        name: values.tolist() for name, values in expected.items()
    }
