"""The counter-based random numbers: Random123's known answers, distributions, independence of streams."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from trainables.streams import Purpose, Streams, philox

ONES = 0xFFFFFFFF
ALPHA = 1e-4
"""The significance level of the tests of distributions; the seeds are fixed, so results do not vary."""


# --- the cipher ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ONES] * 4, [ONES] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],  # the digits of pi
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_known_answers_of_random123(counter, key, answer):
    words = philox(torch.tensor(counter)[:, None, None], torch.tensor(key)[:, None, None])
    assert words.flatten().tolist() == answer


def reference(c, k):
    """Philox4x32-10 of one counter (four words) under one key (two words), in Python's integers."""
    c, k = list(c), list(k)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & ONES, (p0 >> 32) ^ c[3] ^ k[1], p0 & ONES]
        k = [(k[0] + 0x9E3779B9) & ONES, (k[1] + 0xBB67AE85) & ONES]
    return c


def test_philox_agrees_with_arithmetic_in_python_integers():
    draws = np.random.default_rng(0).integers(0, 2**32, size=(6, 20))
    words = philox(torch.from_numpy(draws[:4, None]), torch.from_numpy(draws[4:, None]))
    assert words[:, 0].T.tolist() == [reference(column[:4], column[4:]) for column in draws.T.tolist()]


# --- numbers from words ----------------------------------------------------------------------------------------------


def words(n: int, seed: int, purpose: int, epoch: int, step: int) -> list[int]:
    """The first n words of a stream: the cipher of the counters (block, step, epoch, purpose)."""
    key = (seed & ONES, seed >> 32)
    return [word for block in range(-(-n // 4)) for word in reference((block, step, epoch, purpose), key)][:n]


@pytest.mark.parametrize("number", [int, lambda value: torch.tensor([value])], ids=["integers", "tensors"])
def test_every_number_follows_from_the_cipher(number):
    """These numbers are part of every result: with others, a member that goes on is no longer the member it was."""
    seed, purpose, epoch, step, n = 7 + 2**40, Purpose.LATENT, 3, 5, 7
    streams, at = Streams([1, seed], dtype=torch.float64), {"epoch": number(epoch), "step": number(step)}
    halves = [half for word in words(4, seed, purpose, epoch, step) for half in (word & 0xFFFF, word >> 16)]
    uniform = [((word >> 9) + 0.5) / 2**23 for word in words(8, seed, purpose, epoch, step)]
    angles = [(math.sqrt(-2 * math.log(u)), 2 * math.pi * v) for u, v in zip(uniform[:4], uniform[4:], strict=True)]
    expected = {
        "uniform": uniform,
        "uniform_coarse": [half / 2**16 for half in halves],
        "normal": [r * math.cos(a) for r, a in angles] + [r * math.sin(a) for r, a in angles],
        "logistic": [math.log(u / (1 - u)) for u in uniform],
        "gumbel": [-math.log(-math.log(u)) for u in uniform],
    }
    assert expected.keys() == DISTRIBUTIONS.keys()
    for kind, numbers in expected.items():
        drawn = getattr(streams, kind)((n,), purpose, **at)[1]
        np.testing.assert_allclose(drawn, numbers[:n], rtol=1e-12, atol=1e-12, err_msg=kind)
    high, low = np.reshape(words(2 * n, seed, Purpose.ORDER, epoch, 0), (2, n)).tolist()
    order = sorted(range(n), key=lambda i: (high[i] << 20) ^ low[i])
    assert streams.permutation(n, Purpose.ORDER, epoch=number(epoch))[1].tolist() == order


# --- distributions ---------------------------------------------------------------------------------------------------


def draw(kind: str, n: int = 1_000_000, *, seed: int = 7, step: int = 3, dtype=torch.float64) -> np.ndarray:
    streams = Streams([seed], dtype=dtype)
    return getattr(streams, kind)((n,), Purpose.LATENT, epoch=2, step=step)[0].numpy()


DISTRIBUTIONS = {
    "uniform": stats.uniform(),
    "uniform_coarse": stats.uniform(),
    "normal": stats.norm(),
    "logistic": stats.logistic(),
    "gumbel": stats.gumbel_r(),
}


@pytest.mark.parametrize("kind", sorted(DISTRIBUTIONS))
def test_distribution(kind):
    assert stats.kstest(draw(kind), DISTRIBUTIONS[kind].cdf).pvalue > ALPHA


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("uniform", stats.uniform(0.004)),
        ("normal", stats.norm(scale=1.01)),
        ("logistic", stats.norm(scale=math.pi / 3**0.5)),  # same mean and variance
        ("gumbel", stats.gumbel_l()),
    ],
)
def test_a_wrong_distribution_is_rejected(kind, wrong):
    assert stats.kstest(draw(kind), wrong.cdf).pvalue < ALPHA


def uniformity(words: np.ndarray) -> float:
    """The p value of the hypothesis that all 256 values of a byte are equally likely."""
    return stats.chisquare(np.bincount(words, minlength=256)).pvalue


@pytest.mark.parametrize("shift", [15, 7, 0])
def test_every_byte_of_the_bits_is_uniform(shift):
    bits = (draw("uniform", 200_000) * 2**23).astype(np.int64)
    assert uniformity((bits >> shift) & 0xFF) > ALPHA
    assert uniformity(((bits >> shift) & 0xFF) | (np.arange(len(bits)) % 25 == 0)) < ALPHA  # 2% too many odd


def dependence(a: np.ndarray, b: np.ndarray) -> float:
    """The p value of the independence of a and b, uniform in (0, 1): chi-square test on a 16 x 16 grid."""
    cells = (a * 16).astype(int) * 16 + (b * 16).astype(int)
    return stats.chisquare(np.bincount(cells, minlength=256)).pvalue


BASE = {"seed": 7, "purpose": Purpose.LATENT, "epoch": 2, "step": 3}


def stream(seed: int, purpose: Purpose, epoch: int, step: int) -> np.ndarray:
    streams = Streams([seed], dtype=torch.float64)
    return streams.uniform((50_000,), purpose, epoch=epoch, step=step)[0].numpy()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"seed": 7 + 2**32},
        {"seed": 2**63 - 1},
        {"purpose": Purpose.PIXELS},
        {"purpose": Purpose.EVALUATION_LATENT},
        {"epoch": 3},
        {"step": 4},
        {"epoch": 3, "step": 2},
    ],
    ids=str,
)
def test_streams_are_independent(change):
    a, b = stream(**BASE), stream(**(BASE | change))
    assert dependence(a, b) > ALPHA


def test_neighbours_in_a_stream_are_independent():
    a = stream(**BASE)
    for lag in (1, 2, 3, 4):
        assert dependence(a[lag:], a[:-lag]) > ALPHA


def test_a_small_dependence_is_detected():
    a, b = stream(**BASE), stream(**(BASE | {"seed": 8}))
    copied = np.where(np.arange(len(a)) % 20 == 0, a, b)  # 5% of the numbers are shared
    assert dependence(a, copied) < ALPHA


def test_purposes_have_fixed_and_distinct_numbers():
    assert {p.name: p.value for p in Purpose} == {
        "ORDER": 1,
        "PIXELS": 2,
        "LATENT": 3,
        "EVALUATION_PIXELS": 4,
        "EVALUATION_LATENT": 5,
        "DIAGNOSTIC": 6,
    }


# --- members and dtypes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(DISTRIBUTIONS))
@pytest.mark.parametrize("shape", [(5,), (3, 4, 2), (2, 3, 1, 7)])
def test_a_member_draws_the_same_numbers_alone_and_packed(kind, shape):
    seeds = [3, 0, 2**40 + 1, 3]
    arguments = {"epoch": 1, "step": 9}
    packed = getattr(Streams(seeds), kind)(shape, Purpose.LATENT, **arguments)
    alone = [getattr(Streams([seed]), kind)(shape, Purpose.LATENT, **arguments)[0] for seed in seeds]
    assert packed.shape == (4, *shape)
    assert torch.equal(packed, torch.stack(alone))
    assert not torch.equal(packed[0], packed[1])


def test_uniform_numbers_do_not_depend_on_dtype():
    for kind in ("uniform", "uniform_coarse"):
        assert np.array_equal(draw(kind, dtype=torch.float32).astype(np.float64), draw(kind))


@pytest.mark.parametrize("kind", ["normal", "logistic", "gumbel"])
def test_derived_numbers_depend_on_dtype_by_rounding_only(kind):
    np.testing.assert_allclose(draw(kind, dtype=torch.float32), draw(kind), rtol=2e-6, atol=2e-6)


def test_ranges_are_such_that_logarithms_are_finite():
    smallest, largest = 0.5 * 2.0**-23, 1 - 0.5 * 2.0**-23
    for dtype in (torch.float32, torch.float64):
        ends = torch.tensor([smallest, largest], dtype=dtype)
        assert ends.logit().isfinite().all()
        assert (-(-ends.log()).log()).isfinite().all()
    numbers = draw("uniform", dtype=torch.float32)
    assert smallest <= numbers.min() < 1e-5
    assert 1 - 1e-5 < numbers.max() <= largest


def test_dequantized_pixels_stay_in_their_bin_in_float32():
    coarse = torch.from_numpy(draw("uniform_coarse", dtype=torch.float32))
    assert coarse.min() == 0
    assert coarse.max() == 1 - 2.0**-16
    assert (torch.full((1,), 255, dtype=torch.uint8) + coarse).floor().eq(255).all()


# --- permutations ----------------------------------------------------------------------------------------------------


def test_permutation_is_one_for_each_member_and_epoch():
    streams = Streams([0, 1])
    first, second = (streams.permutation(1_437, Purpose.ORDER, epoch=epoch) for epoch in (1, 2))
    for order in (*first, *second):
        assert torch.equal(order.sort().values, torch.arange(1_437))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[1], Streams([1]).permutation(1_437, Purpose.ORDER, epoch=1)[0])


def test_all_orders_of_four_are_equally_likely():
    orders = Streams(list(range(24_000))).permutation(4, Purpose.ORDER, epoch=1)
    counts = torch.unique(orders, dim=0, return_counts=True)[1].numpy()
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > ALPHA
    counts[0] += 250  # one order is a quarter more frequent
    assert stats.chisquare(counts).pvalue < ALPHA
