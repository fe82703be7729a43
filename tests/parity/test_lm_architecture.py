"""Our decoder beside DCLM's architecture, written a second time in plain NumPy float64 from its description.

The reference uses nothing of ours: forward values after every sub-layer, the loss with z-loss, the gradient
of every parameter by hand-written backward formulas. The description was held against the source of open_lm
(9bb92ef, the trainer of DCLM): the order query, key, value in the in-projection; gate before up in ``w12``;
norms of query and key before the split into heads; half-rotation with angle position x 10000^(-2i/K); softmax
scale 1/sqrt(K); logits neither scaled nor capped, in fp32 before the loss; z-loss added to the mean
cross-entropy; norms with a gain and no bias, in bf16 under autocast; the initialisation tested below.

One thing is not reproduced: in bf16 open_lm makes its rotary table from frequencies rounded to bf16 (off by
up to 0.12 rad at distance 100), in training only; DCLM evaluates, with other norms, at the exact ones.
"""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from recipes import scale as scales
from recipes.lm import model as ours
from recipes.lm.model import Decoder, Shape

EPS, BASE, Z = 1e-5, 10_000.0, 0.02
# head dim 30; 8/3 · 120 = 320, so that the width rule rounds up (to 512)
SHAPE = Shape(vocab=131, dim=120, layers=3, heads=4, context=20)
PUBLISHED = {  # parameters, without the gains of query and key norms, and feed-forward width
    "lm-400m-1x": (411_616_256, 2816, 1),
    "lm-1b-1x": (1_439_795_200, 5632, 1),
    "lm-3b-1x": (2_795_932_160, 6912, 1),
    "lm-7b-1x": (6_889_410_560, 11_008, 1),
    "lm-7b-2x": (6_889_410_560, 11_008, 2),
}
LADDER = ["lm-10m", "lm-40m", "lm-80m", "lm-150m"]


class Reference:
    """DCLM's decoder over one sequence; ``trace`` holds the value after every step."""

    def __init__(self, weights: dict[str, np.ndarray], layers: int, heads: int) -> None:
        self.w, self.layers, self.heads = weights, layers, heads
        self.grad = {name: np.zeros_like(value) for name, value in weights.items()}
        self.trace: dict[str, np.ndarray] = {}
        self.saved: dict[str, tuple] = {}

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scale = 1 / np.sqrt((centred**2).mean(-1, keepdims=True) + EPS)
        self.saved[name] = (centred * scale, scale)
        self.trace[name] = centred * scale * self.w[name]
        return self.trace[name]

    def _norm_back(self, name: str, dy: np.ndarray) -> np.ndarray:
        unit, scale = self.saved[name]
        self.grad[name] += (dy * unit).sum(0)
        d = dy * self.w[name]
        return scale * (d - d.mean(-1, keepdims=True) - unit * (d * unit).mean(-1, keepdims=True))

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        self.saved[name] = (x,)
        self.trace[name] = x @ self.w[name].T
        return self.trace[name]

    def _linear_back(self, name: str, dy: np.ndarray) -> np.ndarray:
        self.grad[name] += dy.T @ self.saved[name][0]
        return dy @ self.w[name]

    def _turn(self, x: np.ndarray, sign: int = 1) -> np.ndarray:
        """Rotary positions of (T, K): elements i and i + K/2 are a complex number, turned by position."""
        half = x.shape[1] // 2
        angle = np.arange(len(x))[:, None] * BASE ** (-2 * np.arange(half) / x.shape[1])
        z = (x[:, :half] + 1j * x[:, half:]) * np.exp(sign * 1j * angle)
        return np.concatenate([z.real, z.imag], axis=1)

    def _attention(self, n: int, x: np.ndarray) -> np.ndarray:
        t, d = x.shape
        size = d // self.heads
        q, k, v = (self._linear(f"{n}.{name}", x) for name in "qkv")
        q, k = self._norm(f"{n}.q_norm", q), self._norm(f"{n}.k_norm", k)
        mixed = np.empty_like(v)
        future = np.triu(np.ones((t, t), dtype=bool), 1)
        for h in range(self.heads):
            part = slice(h * size, (h + 1) * size)
            a, b = self._turn(q[:, part]), self._turn(k[:, part])
            scores = np.where(future, -np.inf, a @ b.T / math.sqrt(size))
            p = np.exp(scores - scores.max(1, keepdims=True))
            p /= p.sum(1, keepdims=True)
            self.saved[f"{n}.head{h}"] = (a, b, v[:, part], p)
            mixed[:, part] = p @ v[:, part]
        self.trace[f"{n}.mixed"] = mixed
        return self._linear(f"{n}.out", mixed)

    def _attention_back(self, n: int, dy: np.ndarray) -> np.ndarray:
        dmixed = self._linear_back(f"{n}.out", dy)
        dq, dk, dv = np.empty_like(dmixed), np.empty_like(dmixed), np.empty_like(dmixed)
        size = dmixed.shape[1] // self.heads
        for h in range(self.heads):
            part = slice(h * size, (h + 1) * size)
            a, b, v, p = self.saved[f"{n}.head{h}"]
            dv[:, part] = p.T @ dmixed[:, part]
            dp = dmixed[:, part] @ v.T
            ds = p * (dp - (dp * p).sum(1, keepdims=True)) / math.sqrt(size)
            dq[:, part], dk[:, part] = self._turn(ds @ b, -1), self._turn(ds.T @ a, -1)
        dq, dk = self._norm_back(f"{n}.q_norm", dq), self._norm_back(f"{n}.k_norm", dk)
        return sum(self._linear_back(f"{n}.{name}", d) for name, d in zip("qkv", (dq, dk, dv), strict=True))

    def _ffn(self, n: int, x: np.ndarray) -> np.ndarray:
        gate, up = self._linear(f"{n}.gate", x), self._linear(f"{n}.up", x)
        sigmoid = 1 / (1 + np.exp(-gate))
        self.saved[f"{n}.ffn"] = (gate, up, sigmoid)
        return self._linear(f"{n}.down", gate * sigmoid * up)

    def _ffn_back(self, n: int, dy: np.ndarray) -> np.ndarray:
        d = self._linear_back(f"{n}.down", dy)
        gate, up, sigmoid = self.saved[f"{n}.ffn"]
        dgate = d * up * sigmoid * (1 + gate * (1 - sigmoid))
        return self._linear_back(f"{n}.gate", dgate) + self._linear_back(f"{n}.up", d * gate * sigmoid)

    def forward(self, ids: np.ndarray) -> np.ndarray:
        x = self.trace["embedding"] = self.w["embedding"][ids]
        for n in range(self.layers):
            x = x + self._attention(n, self._norm(f"{n}.attention_norm", x))
            x = x + self._ffn(n, self._norm(f"{n}.ffn_norm", x))
            self.trace[f"{n}"] = x
        return self._linear("head", self._norm("norm", x))

    def backward(self, ids: np.ndarray, dlogits: np.ndarray) -> None:
        d = self._norm_back("norm", self._linear_back("head", dlogits))
        for n in reversed(range(self.layers)):
            d = d + self._norm_back(f"{n}.ffn_norm", self._ffn_back(n, d))
            d = d + self._norm_back(f"{n}.attention_norm", self._attention_back(n, d))
        np.add.at(self.grad["embedding"], ids, d)

    def loss(self, contexts: np.ndarray) -> tuple[float, float]:
        """(objective, cross-entropy) of (B, T+1) ids, the gradients of the objective added to ``grad``."""
        count = contexts[:, 1:].size
        entropy = square = 0.0
        for row in contexts:
            logits = self.forward(row[:-1])
            top = logits.max(1, keepdims=True)
            lse = top + np.log(np.exp(logits - top).sum(1, keepdims=True))
            right = np.eye(logits.shape[1])[row[1:]]
            entropy += (lse[:, 0] - (logits * right).sum(1)).sum()
            square += (lse**2).sum()
            p = np.exp(logits - lse)
            self.backward(row[:-1], (p - right + 2 * Z * lse * p) / count)
        return entropy / count + Z * square / count, entropy / count


def names(layers: int) -> dict[str, tuple[str, int, int]]:
    """Name in the reference -> parameter of ours, and which of how many equal parts of its rows it is."""
    table = {
        "embedding": ("embedding.weight", 0, 1),
        "norm": ("norm.weight", 0, 1),
        "head": ("head.weight", 0, 1),
    }
    for n in range(layers):
        at = f"blocks.{n}"
        for i, name in enumerate("qkv"):
            table[f"{n}.{name}"] = (f"{at}.attention.qkv.weight", i, 3)
        table[f"{n}.gate"] = (f"{at}.ffn.gate_up.weight", 0, 2)
        table[f"{n}.up"] = (f"{at}.ffn.gate_up.weight", 1, 2)
        for name, own in {
            "attention_norm": "attention_norm",
            "q_norm": "attention.q_norm",
            "k_norm": "attention.k_norm",
            "out": "attention.out",
            "ffn_norm": "ffn_norm",
            "down": "ffn.down",
        }.items():
            table[f"{n}.{name}"] = (f"{at}.{own}.weight", 0, 1)
    return table


def parts(tensors: dict[str, torch.Tensor], layers: int) -> dict[str, np.ndarray]:
    """Parameters or gradients of ours under the names of the reference, in float64."""
    found = {}
    for name, (own, i, n) in names(layers).items():
        found[name] = tensors[own].detach().double().chunk(n)[i].numpy()
    return found


def shaken(shape: Shape) -> Decoder:
    """A model far from its initial values: gains differ from 1 and matrices are large enough to matter."""
    model = Decoder(shape, 5)
    draw = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.mul_(1 + torch.randn(parameter.shape, generator=draw) / 3)
            else:
                parameter.mul_(1.5).add_(torch.randn(parameter.shape, generator=draw) / 100)
    return model


def exact(model: Decoder) -> Decoder:
    """The same model in float64, rotary tables included."""
    s = model.shape
    double = Decoder(s).double()
    double.load_state_dict(model.state_dict())
    angle = np.arange(s.context)[:, None] * BASE ** (-2 * np.arange(s.head_dim // 2) / s.head_dim)
    double.cos, double.sin = (torch.from_numpy(np.tile(f(angle), 2)) for f in (np.cos, np.sin))
    return double


@pytest.fixture(scope="module")
def contexts() -> torch.Tensor:
    return torch.randint(0, SHAPE.vocab, (3, SHAPE.context + 1), generator=torch.Generator().manual_seed(1))


def traced(model: Decoder, ids: torch.Tensor) -> dict[str, np.ndarray]:
    """Our values of one sequence under the names of the reference."""
    trace: dict[str, np.ndarray] = {}

    def keep(name: str, value: torch.Tensor) -> None:
        trace[name] = value.detach()[0].double().numpy()

    hooks = []

    def after(name: str, module: torch.nn.Module) -> None:
        hooks.append(module.register_forward_hook(lambda _, __, out: keep(name, out)))

    after("embedding", model.embedding)
    after("norm", model.norm)
    after("head", model.head)
    for n, block in enumerate(model.blocks):
        for name, module in {
            "": block,
            ".attention_norm": block.attention_norm,
            ".q_norm": block.attention.q_norm,
            ".k_norm": block.attention.k_norm,
            ".qkv": block.attention.qkv,
            ".out": block.attention.out,
            ".ffn_norm": block.ffn_norm,
            ".gate_up": block.ffn.gate_up,
            ".down": block.ffn.down,
        }.items():
            after(f"{n}{name}", module)
        hooks.append(
            block.attention.out.register_forward_pre_hook(lambda _, x, n=n: keep(f"{n}.mixed", x[0]))
        )
    model(ids)
    for hook in hooks:
        hook.remove()
    for n in range(model.shape.layers):
        for name, value in zip("qkv", np.split(trace.pop(f"{n}.qkv"), 3, axis=1), strict=True):
            trace[f"{n}.{name}"] = value
        trace[f"{n}.gate"], trace[f"{n}.up"] = np.split(trace.pop(f"{n}.gate_up"), 2, axis=1)
    return trace


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_values_after_every_sub_layer(contexts: torch.Tensor, precision: str) -> None:
    model = shaken(SHAPE)
    reference = Reference(parts(model.state_dict(), SHAPE.layers), SHAPE.layers, SHAPE.heads)
    reference.forward(contexts[0, :-1].numpy())
    got = traced(exact(model) if precision == "float64" else model, contexts[:1, :-1])
    assert set(got) == set(reference.trace)
    assert len(got) == 3 + 13 * SHAPE.layers
    for name, expected in reference.trace.items():
        close = 1e-11 if precision == "float64" else 2e-5
        np.testing.assert_allclose(
            got[name], expected, rtol=0, atol=close * np.abs(expected).max(), err_msg=name
        )


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_loss_and_gradient_of_every_parameter(contexts: torch.Tensor, precision: str) -> None:
    model = shaken(SHAPE)
    reference = Reference(parts(model.state_dict(), SHAPE.layers), SHAPE.layers, SHAPE.heads)
    expected = reference.loss(contexts.numpy())
    if precision == "float64":
        model = exact(model)
    objective, entropy = model.loss(contexts, Z)
    objective.backward()
    close = 1e-11 if precision == "float64" else 2e-5
    np.testing.assert_allclose([objective.item(), entropy.item()], expected, rtol=close)
    assert expected[0] > expected[1] > 0
    got = parts({name: p.grad for name, p in model.named_parameters()}, SHAPE.layers)
    assert sum(v.size for v in got.values()) == SHAPE.parameters
    for name, value in reference.grad.items():
        assert np.abs(value).max() > 0, name
        np.testing.assert_allclose(got[name], value, rtol=0, atol=close * np.abs(value).max(), err_msg=name)


def test_backward_formulas_of_the_reference_itself(contexts: torch.Tensor) -> None:
    """Central differences along one random direction per parameter."""
    weights = parts(shaken(SHAPE).state_dict(), SHAPE.layers)
    reference = Reference(weights, SHAPE.layers, SHAPE.heads)
    reference.loss(contexts[:1].numpy())
    draw = np.random.default_rng(0)
    for name in ("embedding", "0.q", "1.k_norm", "1.v", "2.gate", "2.down", "1.ffn_norm", "norm", "head"):
        direction = draw.standard_normal(weights[name].shape)
        step = 1e-6
        sides = []
        for sign in (1, -1):
            moved = weights | {name: weights[name] + sign * step * direction}
            sides.append(Reference(moved, SHAPE.layers, SHAPE.heads).loss(contexts[:1].numpy())[0])
        slope = (sides[0] - sides[1]) / (2 * step)
        assert slope == pytest.approx((reference.grad[name] * direction).sum(), rel=1e-6), name


def test_attention_crosses_document_borders(contexts: torch.Tensor) -> None:
    """DCLM packs documents back to back without a mask: what stands before an end-of-text token is seen."""
    ids = contexts[:1, :-1].clone()
    ids[0, 10] = 0  # the end-of-text token of our and NeoX's vocabularies
    changed = ids.clone()
    changed[0, 3] = (changed[0, 3] + 1) % SHAPE.vocab
    model = shaken(SHAPE)
    assert not torch.allclose(model(ids)[0, 11:], model(changed)[0, 11:], atol=1e-4)


def test_norm_computes_in_the_precision_of_autocast() -> None:
    norm = ours.Norm(64, EPS)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * 3 + 1
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 64))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = norm(x)
        assert low.dtype == torch.bfloat16
        cast = torch.nn.functional.layer_norm(x.bfloat16(), (64,), norm.weight.bfloat16(), None, EPS)
        assert torch.equal(low, cast)
        assert norm(x).dtype == torch.float32


def initial_deviations(shape: Shape) -> dict[str, float]:
    table = {"embedding": shape.dim**-0.5, "head": shape.dim**-0.5}
    for n in range(shape.layers):
        depth = math.sqrt(2 * (n + 1))
        for name in ("q", "k", "v", "gate", "up"):
            table[f"{n}.{name}"] = shape.dim**-0.5
        table[f"{n}.out"] = shape.dim**-0.5 / depth
        table[f"{n}.down"] = shape.ffn_dim**-0.5 / depth
    return table


def test_initialisation_of_every_matrix() -> None:
    """Normal of the given deviation, cut (not clipped) at three of them; gains are 1."""
    shape = Shape(vocab=500, dim=256, layers=5, heads=4, context=8)
    weights = parts(Decoder(shape, 11).state_dict(), shape.layers)
    expected = initial_deviations(shape)
    assert expected["4.out"] == pytest.approx(1 / math.sqrt(256) / math.sqrt(10))
    for name, value in weights.items():
        if name not in expected:
            assert (value == 1).all(), name
            continue
        unit = value.ravel() / expected[name]
        error = 5 / math.sqrt(2 * unit.size)  # five standard errors of a deviation
        assert abs(unit.mean()) < 5 / math.sqrt(unit.size), name
        assert unit.std() == pytest.approx(0.98658, rel=error), name  # of a normal cut at 3
        assert 2.9 < np.abs(unit).max() <= 3 + 1e-5, name
        beyond = (np.abs(unit) > 2).mean()  # (P(|x| > 2) - P(|x| > 3)) / P(|x| < 3)
        assert beyond == pytest.approx(0.042918, abs=5 * math.sqrt(0.0429 / unit.size)), name
        assert (np.abs(unit) > 2.999).mean() < 1e-3, name  # clipping would pile up there


def shape_of(name: str) -> Shape:
    return scales.load(name).section("model", Shape)


@pytest.mark.parametrize("name", [*PUBLISHED, *LADDER])
def test_parameter_counts_of_the_scales(monkeypatch, name: str) -> None:
    shape = shape_of(name)
    monkeypatch.setattr(Decoder, "initialise", lambda *_: None)  # shapes without memory
    with torch.device("meta"):
        model = Decoder(shape)
    sizes = {key: tuple(p.shape) for key, p in model.named_parameters()}
    assert sum(math.prod(size) for size in sizes.values()) == shape.parameters
    assert sizes["blocks.0.attention.qkv.weight"] == (3 * shape.dim, shape.dim)
    assert sizes["blocks.0.attention.q_norm.weight"] == (shape.dim,)  # the full vector, not one head
    width = 256 * math.ceil(math.floor(8 * shape.dim / 3) / 256)
    assert sizes["blocks.0.ffn.gate_up.weight"] == (2 * width, shape.dim)
    assert sizes["head.weight"] == sizes["embedding.weight"] == (50_432, shape.dim)
    as_published = sum(
        math.prod(size) for key, size in sizes.items() if "q_norm" not in key and "k_norm" not in key
    )
    if name in PUBLISHED:
        assert (as_published, shape.ffn_dim) == PUBLISHED[name][:2]
    text = (scales.SCALES / f"{name}.yaml").read_text(encoding="utf-8")
    if "for twice the tokens" not in text:
        (said,) = re.findall(r"([\d,]+) parameters", text)
        assert int(said.replace(",", "")) == as_published
    # Twenty tokens a parameter, to the nearest step.
    train = scales.load(name)["train"]
    step = train["batch"] * shape.context
    asked = 20 * as_published * PUBLISHED.get(name, (0, 0, 1))[2]
    assert abs(train["steps"] * step - asked) <= step


def test_every_rule_matters(contexts: torch.Tensor) -> None:
    """The comparison above can fail: another eps, base or norm moves values by far more than it allows."""
    model = exact(shaken(SHAPE))
    plain = model(contexts[:1, :-1])
    for change in ({"norm_eps": 1e-6}, {"rope_base": 20_000.0}, {"qk_norm": False}):
        other = Decoder(replace(SHAPE, **change)).double()
        other.load_state_dict(model.state_dict(), strict="qk_norm" not in change)
        if "rope_base" not in change:
            other.cos, other.sin = model.cos, model.sin
        assert (other(contexts[:1, :-1]) - plain).abs().max() > 1e-9 * plain.abs().max(), change
