import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from recipes.lm.model import Cache, Decoder, LinearCrossEntropy, Shape, rotary_table, rotate
from recipes.lm.optimizer import AdamW, clip_gradients

TOY = Shape(vocab=97, dim=32, layers=3, heads=4, context=24, ffn_multiple=16)
DCLM = {  # total parameters and feed-forward width of DCLM's published configurations
    "400m": (Shape(50_432, 1024, 24, 8, 2048), 411_616_256, 2816),
    "1b": (Shape(50_432, 2048, 24, 16, 2048), 1_439_795_200, 5632),
    "3b": (Shape(50_432, 2560, 32, 32, 2048), 2_795_932_160, 6912),
    "7b": (Shape(50_432, 4096, 32, 32, 2048), 6_889_410_560, 11_008),
}


@pytest.mark.parametrize("name", DCLM)
def test_shapes_are_dclms(name: str) -> None:
    shape, parameters, ffn = DCLM[name]
    # The published totals leave out the gains of the query/key norm.
    shape = replace(shape, qk_norm=False)
    assert (shape.parameters, shape.ffn_dim) == (parameters, ffn)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_parameter_count_is_that_of_the_module(tied: bool, qk_norm: bool) -> None:
    shape = Shape(97, 32, 3, 4, 24, tied=tied, qk_norm=qk_norm, ffn_multiple=16)
    assert sum(p.numel() for p in Decoder(shape).parameters()) == shape.parameters
    assert all(not name.endswith("bias") for name, _ in Decoder(shape).named_parameters())


def test_initialisation_follows_depth_and_seed() -> None:
    shape = Shape(2000, 128, 4, 4, 16)
    model, again, other = Decoder(shape, 7), Decoder(shape, 7), Decoder(shape, 8)
    assert torch.equal(model.head.weight, again.head.weight)
    assert not torch.equal(model.head.weight, other.head.weight)
    cut = 0.98658  # standard deviation of a normal cut at 3 sigma
    for depth, block in enumerate(model.blocks):
        shrink = math.sqrt(2 * (depth + 1))
        assert block.attention.qkv.weight.std().item() == pytest.approx(cut / math.sqrt(128), rel=0.03)
        assert block.attention.out.weight.std().item() == pytest.approx(
            cut / math.sqrt(128) / shrink, rel=0.03
        )
        width = shape.ffn_dim
        assert block.ffn.down.weight.std().item() == pytest.approx(cut / math.sqrt(width) / shrink, rel=0.03)
    assert model.embedding.weight.abs().max() <= 3 / math.sqrt(128) + 1e-6


def reference_logits(model: Decoder, ids: torch.Tensor) -> torch.Tensor:
    """The same function written again, one head and one position at a time, in the model's own dtype."""
    s, state = model.shape, model.state_dict()

    def norm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + s.norm_eps) * gain

    def turn(x: torch.Tensor, position: int) -> torch.Tensor:
        half = s.head_dim // 2
        out = torch.empty_like(x)
        for i in range(half):
            angle = position * s.rope_base ** (-2 * i / s.head_dim)
            a, b = x[i], x[i + half]
            out[i] = a * math.cos(angle) - b * math.sin(angle)
            out[i + half] = b * math.cos(angle) + a * math.sin(angle)
        return out

    x = state["embedding.weight"][ids]  # (T, D)
    for n in range(s.layers):
        w = {k.removeprefix(f"blocks.{n}."): v for k, v in state.items() if k.startswith(f"blocks.{n}.")}
        y = norm(x, w["attention_norm.weight"])
        q, k, v = (y @ m.T for m in w["attention.qkv.weight"].chunk(3))
        q, k = norm(q, w["attention.q_norm.weight"]), norm(k, w["attention.k_norm.weight"])
        mixed = torch.zeros_like(x)
        for h in range(s.heads):
            part = slice(h * s.head_dim, (h + 1) * s.head_dim)
            for t in range(len(ids)):
                query = turn(q[t, part], t)
                scores = torch.stack([query @ turn(k[u, part], u) for u in range(t + 1)]) / math.sqrt(
                    s.head_dim
                )
                mixed[t, part] = scores.softmax(0) @ v[: t + 1, part]
        x = x + mixed @ w["attention.out.weight"].T
        gate, up = (norm(x, w["ffn_norm.weight"]) @ m.T for m in w["ffn.gate_up.weight"].chunk(2))
        x = x + (gate / (1 + torch.exp(-gate)) * up) @ w["ffn.down.weight"].T
    return norm(x, state["norm.weight"]) @ state["head.weight"].T


def test_forward_equals_a_float64_reference() -> None:
    model = Decoder(replace(TOY, layers=2), 3)
    for p in model.parameters():  # gains other than 1, so that a forgotten one shows
        p.data.mul_(1 + 0.2 * torch.rand(p.shape, generator=torch.Generator().manual_seed(1)))
    ids = torch.randint(0, 97, (1, 10), generator=torch.Generator().manual_seed(0))
    got = model(ids)
    double = Decoder(model.shape).double()
    double.load_state_dict(model.state_dict())
    for row in range(len(ids)):
        torch.testing.assert_close(
            got[row].double(), reference_logits(double, ids[row]), atol=2e-4, rtol=1e-3
        )


def test_no_position_sees_the_future() -> None:
    model = Decoder(TOY)
    ids = torch.randint(0, 97, (1, 24))
    changed = ids.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 97
    a, b = model(ids), model(changed)
    torch.testing.assert_close(a[:, :12], b[:, :12])
    assert not torch.allclose(a[:, 12:], b[:, 12:])


def ragged(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows padded to one width with ids that would show if they were read, and their lengths."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [96] * (width - len(row)) for row in rows], dtype=torch.long)
    return ids, torch.tensor([len(row) for row in rows])


def check_read(model: Decoder, told: list[list[int]], new: list[list[int]], cache: Cache | None) -> Cache:
    """Reading ``new`` on from ``cache``, which holds ``told``, equals reading the joined rows at once."""
    ids, lengths = ragged(new)
    hidden, cache = model.read(ids, lengths, cache)
    assert cache.lengths.tolist() == [len(a) + len(b) for a, b in zip(told, new, strict=True)]
    for b, (old, row) in enumerate(zip(told, new, strict=True)):
        if row:
            plain = model.hidden(torch.tensor([old + row]))[0, len(old) :]
            torch.testing.assert_close(hidden[b, : len(row)], plain, atol=2e-5, rtol=1e-4)
    return cache


@pytest.fixture
def unset_memory_is_nan():
    """Memory that nothing was written to holds NaN, as it may in earnest: it must not reach a result."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def drawn(draw: torch.Generator, *sizes: int) -> list[list[int]]:
    return [torch.randint(0, 97, (n,), generator=draw).tolist() for n in sizes]


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("first", [(5, 2, 9), (6, 6, 6), (0, 4, 3)])
def test_reading_on_equals_the_plain_path(unset_memory_is_nan, qk_norm: bool, first: tuple) -> None:
    model = Decoder(replace(TOY, qk_norm=qk_norm), 3)
    draw = torch.Generator().manual_seed(0)
    start = drawn(draw, *first)
    cache = check_read(model, [[], [], []], start, None)
    # The same cache is read on from several times, by rows repeated, left out and in another order.
    for pick in ([2, 0, 0, 2, 1], [1, 1, 1, 1, 1, 1], [2, 0, 2], [1], [2, 1, 0], [0, 1, 2]):
        told = [start[i] for i in pick]
        part = cache.select(torch.tensor(pick))
        for sizes in ([3, 0, 1, 2, 7, 1], [1, 4, 2, 0, 2, 0], [1] * 6, [1] * 6):  # rows may stand still
            new = drawn(draw, *sizes[: len(pick)])
            part = check_read(model, told, new, part)
            told = [a + b for a, b in zip(told, new, strict=True)]
        again = [len(pick) - 1, 0, 0]  # rows of rows
        told = [told[i] for i in again]
        check_read(model, told, drawn(draw, 2, 1, 3), part.select(torch.tensor(again)))


@pytest.mark.parametrize("rows", [1, 3])
def test_reading_on_token_by_token(unset_memory_is_nan, rows: int) -> None:
    """To the end of the context; at every fifth token from one cache twice, which must not disturb either."""
    model = Decoder(TOY, 3)
    draw = torch.Generator().manual_seed(1)
    told = drawn(draw, 4, 1, 2)[:rows]
    cache = check_read(model, [[]] * rows, told, None)
    for step in range(20):
        if step % 5 == 0:
            other = drawn(draw, *[1] * rows)
            fork = check_read(model, told, other, cache)
            before = fork
        new = drawn(draw, *[1] * rows)
        cache = check_read(model, told, new, cache)
        if step % 5 == 0:
            longer = [a + b for a, b in zip(told, other, strict=True)]
            check_read(model, longer, drawn(draw, *[1] * rows), before) if step < 19 else None
        told = [a + b for a, b in zip(told, new, strict=True)]
        if rows == 3 and step == 9:  # rows that are done leave
            rows, told, cache = 2, told[:2], cache.select(torch.tensor([0, 1]))
    assert max(map(len, told)) == 24


FEW_AND_MANY = [  # wanted positions of three rows, of 9, 17 and 20 tokens: attention is asked for few alone
    ([8], [16], [19]),
    ([], [12, 16], [0, 3, 7, 18]),
    ([], [], []),
    ([1, 2, 3], list(range(17)), [4]),
    (list(range(9)), list(range(17)), list(range(20))),
]


@pytest.mark.parametrize("wanted", FEW_AND_MANY)
@pytest.mark.parametrize("qk_norm", [False, True])
def test_hidden_states_at_some_positions_are_those_of_all(unset_memory_is_nan, wanted, qk_norm) -> None:
    model, draw = Decoder(replace(TOY, qk_norm=qk_norm), 3), torch.Generator().manual_seed(4)
    ids, lengths = ragged(drawn(draw, 9, 17, 20))
    at = torch.tensor([20 * b + t for b, row in enumerate(wanted) for t in row], dtype=torch.long)
    with torch.no_grad():
        whole = model.hidden(ids).flatten(0, 1)[at]
        torch.testing.assert_close(model.hidden(ids, at), whole, atol=1e-5, rtol=1e-5)
        part, cache = model.read(ids, lengths, at=at)
        torch.testing.assert_close(part, whole, atol=1e-5, rtol=1e-5)
        _, full = model.read(ids, lengths)
        for got, expected in zip(cache.layers, full.layers, strict=True):
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("pick", [(2, 0), (1, 1, 0, 2), (0, 1, 2), (1,)])
@pytest.mark.parametrize("first", [(3, 9, 5), (6, 6, 6)])
def test_reading_on_at_some_positions_gives_those_of_all(unset_memory_is_nan, first, pick, share) -> None:
    model, draw = Decoder(TOY, 3), torch.Generator().manual_seed(5)
    start = drawn(draw, *first)
    _, cache = model.read(*ragged(start), at=torch.tensor([], dtype=torch.long))
    part = cache.select(torch.tensor(pick), share)
    new = drawn(draw, *(14, 9, 12, 8)[: len(pick)])
    told = check_read(model, [start[i] for i in pick], new, part)
    ids, lengths = ragged(new)
    whole, _ = model.read(ids, lengths, part)
    last = 14 * torch.arange(len(pick)) + lengths - 1
    for at in (last, last[:0], torch.cat([last - 2, last]).sort()[0], torch.arange(8), last[-1:]):
        got, after = model.read(ids, lengths, part, at)
        torch.testing.assert_close(got, whole.flatten(0, 1)[at], atol=1e-5, rtol=1e-5)
        assert after.lengths.equal(told.lengths)
    check_read(model, [start[i] + n for i, n in zip(pick, new, strict=True)], [[1]] * len(pick), after)


def test_the_last_block_is_computed_where_wanted_only() -> None:
    model, ids = Decoder(TOY, 3), torch.zeros(2, 20, dtype=torch.long)
    sizes: dict[int, torch.Size] = {}
    for n, block in enumerate(model.blocks):
        block.ffn.register_forward_hook(lambda _m, x, _y, n=n: sizes.update({n: x[0].shape}))
    assert model.hidden(ids, torch.tensor([19, 37, 39])).shape == (3, 32)
    assert sizes == {0: (2, 20, 32), 1: (2, 20, 32), 2: (3, 32)}


def test_reading_on_in_bf16_is_near_the_plain_path() -> None:
    model, draw = Decoder(TOY, 3), torch.Generator().manual_seed(2)
    first, new = drawn(draw, 9, 5), drawn(draw, 4, 6, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, cache = model.read(*ragged(first))
        hidden, _ = model.read(*ragged(new), cache.select(torch.tensor([1, 0, 1])))
        last, _ = model.read(*ragged(new), cache.select(torch.tensor([1, 0, 1])), torch.tensor([3, 11, 13]))
    torch.testing.assert_close(last, hidden[[0, 1, 2], [3, 5, 1]], atol=0.02, rtol=0.02)
    assert {x.dtype for layer in cache.layers for x in layer} == {torch.bfloat16}
    for b, row in enumerate([1, 0, 1]):
        plain = model.hidden(torch.tensor([first[row] + new[b]]))[0, len(first[row]) :]
        torch.testing.assert_close(hidden[b, : len(new[b])].float(), plain, atol=0.1, rtol=0.05)


def test_reading_beyond_the_context_or_with_other_rows_is_refused() -> None:
    model = Decoder(TOY)
    ids, lengths = torch.zeros(2, 20, dtype=torch.long), torch.tensor([20, 3])
    _, cache = model.read(ids, lengths)
    with pytest.raises(ValueError, match="25 tokens, but the model's context is 24"):
        model.read(ids, torch.tensor([5, 20]), cache)
    model.read(ids, torch.tensor([4, 20]), cache)  # padding beyond the context does no harm
    with pytest.raises(ValueError, match=r"1 rows of ids with \(1,\) lengths and a cache of 2 rows"):
        model.read(ids[:1], lengths[:1], cache)


@pytest.mark.parametrize("block", [1, 97 * 5, 1 << 19])
@pytest.mark.parametrize("z", [0.0, 0.1])
def test_fused_loss_and_gradients_equal_autograd(monkeypatch, block: int, z: float) -> None:
    monkeypatch.setattr(LinearCrossEntropy, "BLOCK", {"cpu": block})
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(13, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(97, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 97, (13,), generator=generator)
    objective, cross_entropy = LinearCrossEntropy.apply(x, weight, target, z)
    got = torch.autograd.grad(3 * objective, (x, weight))
    logits = x @ weight.T
    expected = F.cross_entropy(logits, target)
    whole = expected + z * logits.logsumexp(1).square().mean()
    torch.testing.assert_close(cross_entropy, expected)
    torch.testing.assert_close(objective, whole)
    for a, b in zip(got, torch.autograd.grad(3 * whole, (x, weight)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mode", ["autocast", "pure"])
def test_loss_in_bf16_is_near_that_in_fp32(monkeypatch, mode: str) -> None:
    """Under autocast the gradients have the type of the weights; the softmax itself is computed in fp32."""
    monkeypatch.setattr(LinearCrossEntropy, "BLOCK", {"cpu": 97 * 7})
    contexts = torch.randint(0, 97, (2, 25), generator=torch.Generator().manual_seed(0))
    exact, model = Decoder(TOY, 3), Decoder(TOY, 3)
    objective, entropy = exact.loss(contexts, 1e-2)
    objective.backward()
    if mode == "pure":  # parameters are cast, as FSDP does it, and buffers are not
        model = model.bfloat16()
        model.cos, model.sin = exact.cos, exact.sin
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "autocast"):
        low, low_entropy = model.loss(contexts, 1e-2)
    low.backward()
    assert low.dtype == low_entropy.dtype == torch.float32
    assert low.item() == pytest.approx(objective.item(), rel=2e-3)
    assert low_entropy.item() == pytest.approx(entropy.item(), rel=2e-3)
    for (name, p), q in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert p.grad.dtype == p.dtype
        difference = (p.grad.float() - q.grad).norm() / q.grad.norm()
        assert difference < 0.05, name


def test_rotation_depends_on_distance_only() -> None:
    cos, sin = rotary_table(32, 8, 10_000.0)
    q, k = torch.randn(8), torch.randn(8)

    def product(i: int, j: int) -> float:
        return float(rotate(q, cos[i], sin[i]) @ rotate(k, cos[j], sin[j]))

    assert product(3, 1) == pytest.approx(product(30, 28), abs=1e-5)
    assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-3)


def test_impossible_shapes_and_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="even whole number"):
        Shape(10, 30, 1, 4, 8)
    with pytest.raises(ValueError, match="25 tokens, but the model's context is 24"):
        Decoder(TOY)(torch.zeros(1, 25, dtype=torch.long))


def test_optimizer_equals_torchs() -> None:
    start = [torch.randn(5, 3), torch.randn(7)]
    mine = [t.clone().requires_grad_() for t in start]
    theirs = [t.clone().requires_grad_() for t in start]
    a = AdamW(mine, (0.9, 0.95), 1e-8, 0.1)
    b = torch.optim.AdamW(theirs, 1.0, (0.9, 0.95), 1e-8, 0.1)
    for step in range(20):
        lr = 0.05 / (step + 1)
        b.param_groups[0]["lr"] = lr
        for x, y in zip(mine, theirs, strict=True):
            x.grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(step)) * 3
            y.grad = x.grad.clone()
        norm = clip_gradients(mine, 1.0)
        assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, 1.0).item(), rel=1e-6)
        a.step(lr)
        b.step()
        for x, y in zip(mine, theirs, strict=True):
            torch.testing.assert_close(x, y)
            assert x.grad is None
