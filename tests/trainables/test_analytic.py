"""The analytic expectation against enumeration (bits, categories) and Gauss-Hermite quadrature (Gaussian latents)."""

from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import codes_and_weights, expectation, random_posterior
from scipy.special import dawsn
from torch import Tensor
from torch.func import vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from trainables import analytic
from trainables.analytic import expected_log_likelihood, expected_log_square
from trainables.latents import Bernoulli, Categorical, Gaussian, Latent

LOG_2PI = float(np.log(2 * np.pi))
FAMILIES = ["gaussian", "bernoulli", "categorical"]


@dataclass
class Decoder:
    """Images and a linear decoder of mean u and precision v; all tensors are leaves that require gradients."""

    x: Tensor
    q: Latent
    w_mu: Tensor
    b_mu: Tensor
    w_alpha: Tensor
    b_alpha: Tensor

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return (self.x, *self.q.parameters, self.w_mu, self.b_mu, self.w_alpha, self.b_alpha)

    def mean(self, z: Tensor) -> Tensor:
        return _linear(z, self.w_mu, self.b_mu)

    def precision(self, z: Tensor) -> Tensor:
        return _linear(z, self.w_alpha, self.b_alpha)

    def analytic(self, **options) -> Tensor:
        """The code under test: with learned scale, or with a fixed variance if one is given."""
        if "variance" not in options:
            options |= {"weight_alpha": self.w_alpha, "bias_alpha": self.b_alpha}
        return expected_log_likelihood(self.x, self.q, self.w_mu, self.b_mu, **options)


def _linear(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.einsum("sbl,dl->sbd", z.flatten(2), weight.flatten(1)) + bias


def decoder(family: str, batch: int, pixels: int, latents: int, categories: int, scale: float, seed: int) -> Decoder:
    generator = torch.Generator().manual_seed(seed)
    q = random_posterior(family, batch, latents, categories, generator)
    z_shape = q.parameters[0].shape[1:]

    def leaf(*shape: int, factor: float = 1.0) -> Tensor:
        return (factor * torch.randn(shape, dtype=torch.float64, generator=generator)).requires_grad_()

    return Decoder(
        leaf(batch, pixels),
        q,
        leaf(pixels, *z_shape, factor=scale),
        leaf(pixels),
        leaf(pixels, *z_shape, factor=scale),
        leaf(pixels),
    )


def decoders(family: str) -> st.SearchStrategy[Decoder]:
    return st.builds(
        decoder,
        st.just(family),
        batch=st.integers(1, 3),
        pixels=st.integers(1, 4),
        latents=st.integers(1, 3),
        categories=st.integers(2, 4),
        scale=st.sampled_from([0.1, 1.0, 3.0]),
        seed=st.integers(0, 2**32),
    )


# --- oracles: the definitions, term by term ---------------------------------------------------------------------------


def oracle_fixed(d: Decoder, variance: float) -> Tensor:
    """E[log N(x; u, variance)] [B]."""
    squared = expectation(d.q, lambda z: (d.x - d.mean(z)).square())
    return (-0.5 * squared / variance - 0.5 * LOG_2PI - 0.5 * np.log(variance)).sum(-1)


def oracle_taylor(d: Decoder) -> Tensor:
    """E[log N(x; u, 1 / v^2)] [B], with E[log v^2] expanded to second order about E[v^2]."""
    weighted = expectation(d.q, lambda z: ((d.x - d.mean(z)) * d.precision(z)).square())
    v2 = expectation(d.q, lambda z: d.precision(z).square())
    variance_v2 = expectation(d.q, lambda z: (d.precision(z).square() - v2).square())
    log_v2 = v2.log() - variance_v2 / (2 * v2.square())
    return (0.5 * log_v2 - 0.5 * weighted - 0.5 * LOG_2PI).sum(-1)


def agree(found: Tensor, desired: Tensor, leaves: tuple[Tensor, ...]) -> bool:
    """Whether values and all gradients agree within 1e-10 of their scale."""

    def close(a: Tensor, b: Tensor) -> bool:
        return bool((a - b).abs().max() <= 1e-10 * (1 + b.abs().max()))

    used = {"allow_unused": True, "materialize_grads": True}
    gradients = torch.autograd.grad(found.sum(), leaves, **used)
    expected = torch.autograd.grad(desired.sum(), leaves, **used)
    return close(found, desired) and all(map(close, gradients, expected))


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), variance=st.sampled_from([0.01, 0.5, 2.0]))
def test_fixed_variance(family, data, variance):
    d = data.draw(decoders(family))
    assert agree(d.analytic(variance=variance), oracle_fixed(d, variance), d.leaves)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_learned_scale_taylor(family, data):
    d = data.draw(decoders(family))
    assert agree(d.analytic(), oracle_taylor(d), d.leaves)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(d=decoders("gaussian"))
def test_learned_scale_exact(d):
    """The oracle uses Gauss-Hermite quadrature, and one-dimensional quadrature for the logarithm."""
    weighted = expectation(d.q, lambda z: ((d.x - d.mean(z)) * d.precision(z)).square())
    v_mean = expectation(d.q, d.precision)
    v_variance = expectation(d.q, lambda z: (d.precision(z) - v_mean).square())
    log_v2 = torch.tensor(quadrature_log_square(v_mean.detach().numpy(), v_variance.detach().numpy()))
    desired = (0.5 * log_v2 - 0.5 * weighted - 0.5 * LOG_2PI).sum(-1)
    found = d.analytic(log_term="exact")
    assert bool(((found - desired).abs() <= 1e-10 * (1 + desired.abs())).all())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(d=decoders("gaussian"))
def test_gradient_of_the_exact_log_term_reaches_every_leaf(d):
    """The oracle differentiates E[log v^2] in closed form (Dawson's function), the rest by autograd of quadrature."""
    weighted = expectation(d.q, lambda z: ((d.x - d.mean(z)) * d.precision(z)).square())
    v_mean = expectation(d.q, d.precision)
    v_variance = expectation(d.q, lambda z: (d.precision(z) - v_mean).square())
    slopes = [torch.tensor(s) for s in dawson_slopes(v_mean.detach().numpy(), v_variance.detach().numpy())]
    log_v2 = slopes[0] * v_mean + slopes[1] * v_variance  # only its gradient is right
    desired = (0.5 * log_v2 - 0.5 * weighted).sum(-1)
    found = d.analytic(log_term="exact")
    used = {"allow_unused": True, "materialize_grads": True}
    expected = torch.autograd.grad(desired.sum(), d.leaves, **used)
    for gradient, oracle in zip(torch.autograd.grad(found.sum(), d.leaves, **used), expected, strict=True):
        assert (gradient - oracle).abs().max() <= 1e-10 * (1 + oracle.abs().max())


def test_taylor_is_too_high_by_at_most_018_nats_a_pixel():
    ratio = torch.linspace(0, 10, 1001, dtype=torch.float64)[:, None]  # mean of v, in standard deviations
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    q = Gaussian(ratio, torch.zeros_like(ratio))
    taylor, exact = (
        expected_log_likelihood(ratio, q, one, zero, weight_alpha=one, bias_alpha=zero, log_term=term)
        for term in ("taylor", "exact")
    )
    excess = taylor - exact
    assert excess.min() > 0
    assert float(excess[0]) == pytest.approx((np.euler_gamma + np.log(2) - 1) / 2, abs=1e-12)
    assert float(excess.max()) == pytest.approx(0.1812, abs=1e-4)
    assert float(ratio[excess.argmax()]) == pytest.approx(1.09, abs=0.01)


def taylor_against_enumeration(family: str, precision: float) -> tuple[Tensor, Tensor]:
    """Taylor errors in forty small problems: of the log-likelihood [nats], and of its gradient relative to its norm.

    precision: the bias of every pixel's precision v; the weights of v are normal with standard deviation 0.3.
    """
    errors, relative = [], []
    for seed in range(40):
        d = decoder(family, batch=3, pixels=4, latents=3, categories=3, scale=0.3, seed=seed)
        d.b_alpha.data.fill_(precision)

        def log_likelihood(z: Tensor, d: Decoder = d) -> Tensor:
            squared = ((d.x - d.mean(z)) * d.precision(z)).square()
            return (0.5 * (d.precision(z).square().log() - squared - LOG_2PI)).sum(-1)

        exact, taylor = expectation(d.q, log_likelihood), d.analytic(log_term="taylor")
        wanted, given = (torch.autograd.grad(value.sum(), d.q.parameters)[0] for value in (exact, taylor))
        errors.append((taylor - exact).detach())
        relative.append((given - wanted).norm() / wanted.norm())
    return torch.cat(errors), torch.stack(relative)


@pytest.mark.parametrize("family", ["bernoulli", "categorical"])
def test_taylor_is_biased_for_discrete_latents(family):
    errors, relative = taylor_against_enumeration(family, precision=1.0)
    assert (errors > 1e-3).any()
    assert (errors < -1e-3).any()
    assert relative.median() > 0.03
    assert relative.max() > 0.3
    assert taylor_against_enumeration(family, precision=0.3)[1].median() > 0.4
    assert taylor_against_enumeration(family, precision=3.0)[1].max() < 5e-3


# --- negative controls ------------------------------------------------------------------------------------------------


def moments(d: Decoder) -> tuple[Tensor, ...]:
    """E[v^2], E[u^2 v^2], Var[v^2] and E[u v^2], each [B, D], by enumeration."""
    v2 = expectation(d.q, lambda z: d.precision(z).square())
    uv2 = expectation(d.q, lambda z: d.mean(z) * d.precision(z).square())
    u2v2 = expectation(d.q, lambda z: (d.mean(z) * d.precision(z)).square())
    variance_v2 = expectation(d.q, lambda z: (d.precision(z).square() - v2).square())
    return v2, uv2, u2v2, variance_v2


def printed_sign(d: Decoder, sign: float) -> Tensor:
    """SG eq. 7 with the given sign before its bracket: + is printed, - is right."""
    v2, uv2, u2v2, variance_v2 = moments(d)
    bracket = d.x.square() * v2 - 2 * d.x * uv2 + u2v2
    return (sign * 0.5 * bracket + 0.5 * (v2.log() - variance_v2 / (2 * v2.square())) - 0.5 * LOG_2PI).sum(-1)


def printed_product(d: Decoder, product: bool) -> Tensor:
    """SG eq. 7 with the logarithm of 2 pi multiplying the log term, as printed, or subtracted from it."""
    v2, uv2, u2v2, variance_v2 = moments(d)
    log_v2 = 0.5 * v2.log() - variance_v2 / (4 * v2.square())
    bracket = d.x.square() * v2 - 2 * d.x * uv2 + u2v2
    return (-0.5 * bracket + (0.5 * LOG_2PI * log_v2 if product else log_v2 - 0.5 * LOG_2PI)).sum(-1)


def covariance_of_squares(d: Decoder, printed: bool) -> Tensor:
    """SG eq. 60, Cov(u^2, v^2) [B, D] for Gaussian latents and no bias; its first line as printed, or corrected."""
    assert isinstance(d.q, Gaussian)
    mean, variance = d.q.mean, d.q.log_variance.exp()
    cross = variance @ (d.w_mu * d.w_alpha).mT
    if printed:
        first = 4 * (mean.square() * variance) @ (d.w_mu * d.w_alpha).square().mT
    else:
        first = 4 * (mean @ d.w_mu.mT) * (mean @ d.w_alpha.mT) * cross
    return first + 2 * cross.square()


def through_covariance(d: Decoder, printed: bool) -> Tensor:
    """The expected log-likelihood (Taylor) with E[u^2 v^2] from SG eq. 60."""
    v2, uv2, _, variance_v2 = moments(d)
    u2v2 = expectation(d.q, lambda z: d.mean(z).square()) * v2 + covariance_of_squares(d, printed)
    bracket = d.x.square() * v2 - 2 * d.x * uv2 + u2v2
    return (-0.5 * bracket + 0.5 * (v2.log() - variance_v2 / (2 * v2.square())) - 0.5 * LOG_2PI).sum(-1)


def third_moment(w_mu: Tensor, w_alpha: Tensor, c3: Tensor) -> Tensor:
    """E[du dv^2] [B, D] by SG eq. 32 with index i everywhere; the printed formula has free indices."""
    return c3 @ (w_mu * w_alpha.square()).mT


def fourth_moment(w_mu: Tensor, w_alpha: Tensor, c2: Tensor, c4: Tensor, *, line3: str, line2: str) -> Tensor:
    """E[du^2 dv^2] [B, D] by SG eq. 58; its third line and the index in its second (eq. 59) printed or corrected."""
    own = (w_mu * w_alpha).square()
    s_uv, squares = c2 @ (w_mu * w_alpha).mT, c2.square() @ own.mT
    second = {
        "corrected": (c2 @ w_mu.square().mT) * (c2 @ w_alpha.square().mT),
        "printed": (c2 @ own.mT) * c2.sum(-1, keepdim=True),
    }
    third = {"corrected": squares, "printed": s_uv.square()}
    return c4 @ own.mT + second[line2] - third[line3] + 2 * s_uv.square() - 2 * squares


def test_printed_moments_fail_and_their_corrections_pass():
    d = decoder("bernoulli", batch=2, pixels=3, latents=3, categories=0, scale=1.0, seed=0)
    u, v = (expectation(d.q, projection) for projection in (d.mean, d.precision))
    third = expectation(d.q, lambda z: (d.mean(z) - u) * (d.precision(z) - v).square())
    fourth = expectation(d.q, lambda z: ((d.mean(z) - u) * (d.precision(z) - v)).square())
    assert isinstance(d.q, Bernoulli)
    p = d.q.probs
    c2, c3, c4 = (((1 - p) ** k * p + (-p) ** k * (1 - p)) for k in (2, 3, 4))  # SG eq. 16
    weights = (d.w_mu, d.w_alpha)
    torch.testing.assert_close(third_moment(*weights, c3), third, rtol=1e-9, atol=1e-12)
    right = fourth_moment(*weights, c2, c4, line3="corrected", line2="corrected")
    torch.testing.assert_close(right, fourth, rtol=1e-9, atol=1e-12)
    for wrong in ({"line3": "printed", "line2": "corrected"}, {"line3": "corrected", "line2": "printed"}):
        assert (fourth_moment(*weights, c2, c4, **wrong) - fourth).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("formula", "right", "wrong"),
    [(printed_sign, -1.0, 1.0), (printed_product, False, True), (through_covariance, False, True)],
)
def test_printed_formulas_fail_and_their_corrections_pass(formula: Callable, right, wrong):
    d = decoder("gaussian", batch=2, pixels=3, latents=2, categories=0, scale=1.0, seed=0)
    for bias in (d.b_mu, d.b_alpha):  # eq. 60 has no bias, only a latent fixed at 1
        bias.data.zero_()
    leaves = (d.x, *d.q.parameters, d.w_mu, d.w_alpha)
    assert agree(d.analytic(), oracle_taylor(d), leaves)
    assert agree(formula(d, right), oracle_taylor(d), leaves)
    assert not agree(formula(d, wrong), oracle_taylor(d), leaves)
    assert (formula(d, wrong) - oracle_taylor(d)).abs().min() > 1e-2


def test_entries_of_a_categorical_are_not_independent_bits():
    d = decoder("categorical", batch=2, pixels=3, latents=2, categories=3, scale=1.0, seed=0)
    probs = d.q.probs.flatten(1)
    as_bits = Decoder(d.x, Bernoulli(torch.logit(probs)), d.w_mu.flatten(1), d.b_mu, d.w_alpha.flatten(1), d.b_alpha)
    assert agree(d.analytic(), oracle_taylor(d), d.leaves)
    assert (as_bits.analytic(variance=1.0) - oracle_fixed(d, 1.0)).abs().min() > 1e-2
    assert (as_bits.analytic() - oracle_taylor(d)).abs().min() > 1e-2


def test_a_categorical_of_two_is_a_bit():
    d = decoder("categorical", batch=2, pixels=3, latents=3, categories=2, scale=1.0, seed=0)
    logits = d.q.parameters[0]
    bits = Decoder(
        d.x,
        Bernoulli(logits[..., 1] - logits[..., 0]),
        d.w_mu[..., 1] - d.w_mu[..., 0],
        d.b_mu + d.w_mu[..., 0].sum(-1),
        d.w_alpha[..., 1] - d.w_alpha[..., 0],
        d.b_alpha + d.w_alpha[..., 0].sum(-1),
    )
    torch.testing.assert_close(d.analytic(), bits.analytic(), rtol=1e-12, atol=1e-12)


def test_common_offset_of_categorical_weights_costs_no_digits():
    d = decoder("categorical", batch=2, pixels=3, latents=2, categories=3, scale=0.1, seed=0)
    desired = d.analytic()
    shift = 1e4
    for weight, bias in ((d.w_mu, d.b_mu), (d.w_alpha, d.b_alpha)):
        weight.data += shift
        bias.data -= shift * d.q.parameters[0].shape[1]
    torch.testing.assert_close(d.analytic(), desired, rtol=1e-8, atol=1e-8)


# --- cost -------------------------------------------------------------------------------------------------------------


class Cost(TorchDispatchMode):
    """Counts matrix products and the numbers written by all operations."""

    PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm)

    def __init__(self) -> None:
        super().__init__()
        self.products = self.written = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket in self.PRODUCTS
        self.written += out.numel() if isinstance(out, Tensor) and not func.is_view else 0
        return out


def cost(family: str, latents: int, **options) -> tuple[int, int, int]:
    """Matrix products, their flops and numbers written in the forward pass."""
    d = decoder(family, batch=4, pixels=6, latents=latents, categories=3, scale=1.0, seed=0)
    with torch.no_grad(), Cost() as counter, FlopCounterMode(display=False) as flops:
        d.analytic(**options)
    return counter.products, flops.get_total_flops(), counter.written


@pytest.mark.parametrize(
    ("family", "options", "products"),
    [
        ("gaussian", {"variance": 0.1}, 2),
        ("gaussian", {}, 5),
        ("gaussian", {"log_term": "exact"}, 5),
        ("bernoulli", {"variance": 0.1}, 2),
        ("bernoulli", {}, 10),
        ("categorical", {"variance": 0.1}, 2),
        ("categorical", {}, 10),
    ],
)
def test_cost_is_a_fixed_number_of_products_linear_in_the_latents(family, options, products):
    counts, flops, written = zip(*(cost(family, latents, **options) for latents in (64, 128, 256)), strict=True)
    assert counts == (products,) * 3
    assert flops[1] == 2 * flops[0]
    assert flops[2] == 4 * flops[0]
    # The count of written numbers is linear in the latents, without a quadratic part.
    assert written[2] - written[1] == 2 * (written[1] - written[0])


def test_the_check_of_cost_sees_a_covariance_matrix():
    with Cost() as counter:
        torch.zeros(8, 3).mT @ torch.zeros(8, 3)
    assert counter.products == 1
    assert counter.written == 2 * 24 + 9


# --- E[log v^2] -------------------------------------------------------------------------------------------------------


@np.vectorize
def quadrature_log_square(mean: float, variance: float) -> float:
    """E[log v^2] by Gauss-Legendre, elementwise.

    The integral over the standard normal e in v = mean + sigma e is cut at v = 0, where the logarithm is singular; with
    e = cut +- r^3 the integrand is smooth enough there.
    """
    sigma = variance**0.5
    cut = float(np.clip(-mean / sigma, -12, 12))
    at_cut = mean + sigma * cut if abs(mean) > 12 * sigma else 0.0
    total = 0.0
    for sign, length in ((-1, 12 + cut), (1, 12 - cut)):
        r = 0.5 * length ** (1 / 3) * (NODES + 1)
        density = np.exp(-0.5 * (cut + sign * r**3) ** 2) / np.sqrt(2 * np.pi)
        values = np.log((at_cut + sign * sigma * r**3) ** 2) * density * 3 * r * r
        total += 0.5 * length ** (1 / 3) * float(WEIGHTS @ values)
    return total


NODES, WEIGHTS = np.polynomial.legendre.leggauss(300)


def dawson_slopes(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of E[log v^2] in the mean and the variance."""
    y = mean / np.sqrt(2 * variance)
    return 2 * np.sqrt(2 / variance) * dawsn(y), (1 - 2 * y * dawsn(y)) / variance


MEANS = np.concatenate([-np.geomspace(20, 1e-3, 20), [0.0], np.geomspace(1e-3, 20, 20)])
VARIANCES = np.geomspace(1e-4, 1e3, 22)


@pytest.fixture(scope="module")
def grid() -> tuple[np.ndarray, np.ndarray]:
    """The domain with guaranteed accuracy, in numbers that float32 represents exactly."""
    mean, variance = np.meshgrid(MEANS.astype(np.float32), VARIANCES.astype(np.float32), indexing="ij")
    return mean.astype(float), variance.astype(float)


@pytest.fixture(scope="module")
def quadrature(grid) -> np.ndarray:
    return quadrature_log_square(*grid)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_expected_log_square_against_quadrature(grid, quadrature, dtype, tolerance):
    found = expected_log_square(*(torch.tensor(g, dtype=dtype) for g in grid))
    assert np.abs(found.double().numpy() - quadrature).max() < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_slopes_of_expected_log_square(grid, dtype, tolerance):
    """Errors are relative to the natural sizes: 1 / root mean square of v, and 1 / variance."""
    mean, variance = (torch.tensor(g, dtype=dtype, requires_grad=True) for g in grid)
    found = torch.autograd.grad(expected_log_square(mean, variance).sum(), (mean, variance))
    desired = dawson_slopes(*grid)
    sizes = (np.sqrt(grid[0] ** 2 + grid[1]), grid[1])
    for slope, oracle, size in zip(found, desired, sizes, strict=True):
        assert (np.abs(slope.double().numpy() - oracle) * size).max() < tolerance


def test_expected_log_square_under_vmap_and_gradcheck():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    variance = torch.rand(3, 4, dtype=torch.float64, generator=generator).add(0.1).requires_grad_()
    assert torch.autograd.gradcheck(expected_log_square, (mean, variance))
    assert torch.autograd.gradcheck(vmap(expected_log_square), (mean, variance))
    torch.testing.assert_close(vmap(expected_log_square)(mean, variance), expected_log_square(mean, variance))


def test_chebyshev_coefficients_are_those_of_the_residual():
    """Another method refits them in 30-digit arithmetic: the hypergeometric function at Chebyshev nodes."""
    with mpmath.workdps(30):
        n = 96
        angles = [mpmath.pi * (k + mpmath.mpf(1) / 2) / n for k in range(n)]
        values = [_residual((mpmath.cos(a) + 1) / 2) for a in angles]
        for j in (0, 1, 2, 10, 27, 40, 59):
            refit = 2 * mpmath.fsum(v * mpmath.cos(j * a) for v, a in zip(values, angles, strict=True)) / n
            assert float(refit / 2 if j == 0 else refit) == pytest.approx(analytic._RESIDUAL[j], abs=1e-13)


def _residual(t: mpmath.mpf) -> mpmath.mpf:
    """G - log(1 + 4 e^gamma y^2) at y^2 = 2 t / (1 - t), G = 2 y^2 2F2(1, 1; 3/2, 2; -y^2)."""
    y2 = 2 * t / (1 - t)
    growth = 2 * y2 * mpmath.hyp2f2(1, 1, mpmath.mpf(3) / 2, 2, -y2)
    return growth - mpmath.log(1 + 4 * mpmath.exp(mpmath.euler) * y2)


# --- refused arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variance": 1.0}, "exactly one of variance and weight_alpha"),
        ({"weight_alpha": None, "bias_alpha": None}, "exactly one of variance and weight_alpha"),
        ({"bias_alpha": None}, "together, or neither"),
        ({"weight_alpha": torch.zeros(3, 3)}, "weight_alpha"),
        ({"bias_alpha": torch.zeros(2)}, "bias_alpha"),
        ({"weight_mu": torch.zeros(2, 2)}, "weight_mu"),
        ({"bias_mu": torch.zeros(1)}, "bias_mu"),
        ({"log_term": "series"}, "'taylor' or 'exact'"),
        ({"log_term": "exact"}, "needs Gaussian latents, got bernoulli"),
    ],
)
def test_arguments_are_checked(change, message):
    d = decoder("bernoulli", batch=2, pixels=3, latents=2, categories=0, scale=1.0, seed=0)
    arguments = {
        "weight_mu": d.w_mu,
        "bias_mu": d.b_mu,
        "weight_alpha": d.w_alpha,
        "bias_alpha": d.b_alpha,
    }
    assert expected_log_likelihood(d.x, d.q, **arguments).shape == (2,)
    with pytest.raises(ValueError, match=message):
        expected_log_likelihood(d.x, d.q, **(arguments | change))


def test_weights_of_the_oracle_sum_to_one():
    for family in FAMILIES:
        q = random_posterior(family, 2, 2, 3, torch.Generator().manual_seed(0))
        z, weight = codes_and_weights(q)
        torch.testing.assert_close(weight.sum(0), torch.ones(2, dtype=torch.float64))
        assert z.shape[1:] == q.parameters[0].shape
    assert isinstance(q, Categorical)
