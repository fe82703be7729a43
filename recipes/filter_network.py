"""Train a filter network: a small image-text model on trusted pairs, to score a pool's alignment.

After "Data Filtering Networks" (arXiv 2309.17425): what counts is that its training pairs are right, not how
well it classifies. Before it may be used it must pass the poisoning check: on trusted pairs that it has not
seen, a matched caption must score above a shuffled one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recipes import scale as scales
from recipes.clip.data import Pairs, load_pairs
from recipes.clip.model import build
from recipes.clip.train import TrainResult, train
from recipes.ranking import auc, auc_stderr
from recipes.scale import Scale

REPORT = "report.json"


class FilterNetworkError(RuntimeError):
    """The network must not be used: it cannot tell a matched caption from a shuffled one."""


@dataclass(frozen=True)
class Report:
    """auc: chance that a matched held-out pair scores above a shuffled one; low: its lower 95 % bound.

    trained_on, held_out: numbers of distinct pairs; left_out: trusted pairs not used because their image is
    in the set given as `apart_from`.
    """

    auc: float
    auc_low: float
    trained_on: int
    held_out: int
    left_out: int
    matched_mean: float
    shuffled_mean: float
    scale: str
    scale_hash: str
    seed: int
    seconds: float
    final_loss: float


def train_filter_network(
    trusted: Any,
    out: str | Path,
    scale: str | Path | Scale = "filter-tiny",
    seed: int = 0,
    *,
    held_out: float = 0.1,
    minimum_auc: float = 0.6,
    apart_from: Any = None,
    quiet: bool = True,
    threads: int | None = 1,
    **overrides: Any,
) -> tuple[Path, Report]:
    """Train on `trusted` (tars, parquet, a table) and return (model directory, report).

    A table with a column `captions` (list of true captions) gives one pair per caption.
    held_out: share of distinct images kept for the check; all pairs of one image stay together. apart_from:
    pairs (or anything `load_pairs` takes) whose images must not be trained on: equal pixels are left out, so
    that a pool which shares images with the trusted set is not scored from memory. overrides: settings of the
    scale's `train` section. Raises FilterNetworkError when the lower bound of the AUC is below `minimum_auc`.
    """
    out = Path(out)
    scale = scales.load(scale)
    if overrides:
        scale = scale.replace(train=overrides)
    values = scale.to_dict()
    model = build(values["model"], values.get("pixels"), seed)
    pairs = load_pairs(every_caption(trusted), model.pixels)
    keys = _image_keys(pairs)
    left_out = 0
    if apart_from is not None:
        known = set(_image_keys(load_pairs(apart_from, model.pixels)).tolist())
        keep = np.array([key not in known for key in keys.tolist()])
        left_out = int((~keep).sum())
        pairs, keys = _take(pairs, keep), keys[keep]
    test = _held_out(keys, held_out, seed)
    result = train(scale, _take(pairs, ~test), out, seed, quiet=quiet, threads=threads)
    report = _check(result, _take(pairs, test), keys[test], int((~test).sum()), left_out, seed)
    (out / REPORT).write_text(json.dumps(asdict(report), indent=1) + "\n")
    if not report.auc_low >= minimum_auc:
        raise FilterNetworkError(
            f"matched against shuffled captions on {report.held_out} held-out pairs: AUC {report.auc:.3f} "
            f"(95 % above {report.auc_low:.3f}), needed {minimum_auc}; the trusted pairs are poisoned, too "
            "few, or the budget is too short. The filter network is not to be used"
        )
    return result.model, report


def every_caption(source: Any) -> Any:
    """A table with a list column `captions` as one row per caption (id#0, id#1, …); others unchanged."""
    if not isinstance(source, pa.Table) or "captions" not in source.column_names:
        return source
    captions = source["captions"].combine_chunks()
    parents = pc.list_parent_indices(captions)
    counts = pc.list_value_length(captions).to_numpy(zero_copy_only=False).astype(np.int64)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    ids = pc.binary_join_element_wise(source["id"].take(parents), pa.array(place.astype(str)), "#")
    return pa.table({"id": ids, "text": pc.list_flatten(captions), "image": source["image"].take(parents)})


def _check(
    result: TrainResult, pairs: Pairs, keys: np.ndarray, trained_on: int, left_out: int, seed: int
) -> Report:
    from filters.image_text import network

    if len(set(keys.tolist())) < 20:
        raise FilterNetworkError(
            f"only {len(set(keys.tolist()))} held-out images: too few for the poisoning check; give more "
            "trusted pairs or a larger held_out"
        )
    model = network.load(result.model)
    image, text = model.encode_pixels(pairs.pixels), model.encode_texts(pairs.captions)
    matched = np.einsum("nd,nd->n", image, text)
    other = _shuffled(keys, pairs.captions, seed)
    shuffled = np.einsum("nd,nd->n", image, text[other])
    value = auc(matched, shuffled)
    # pairs of one image are not independent, so the error counts images
    images = len(set(keys.tolist()))
    low = value - 1.96 * auc_stderr(value, images, images)
    return Report(
        auc=value,
        auc_low=low,
        trained_on=trained_on,
        held_out=len(pairs),
        left_out=left_out,
        matched_mean=float(matched.mean()),
        shuffled_mean=float(shuffled.mean()),
        scale=result.scale,
        scale_hash=result.scale_hash,
        seed=seed,
        seconds=round(result.seconds, 3),
        final_loss=result.final_loss,
    )


def _shuffled(keys: np.ndarray, captions: list[str], seed: int) -> np.ndarray:
    """For each pair the row of a caption that belongs to another image and reads differently."""
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    rows = np.arange(len(keys))
    other = rng.permutation(rows)
    for row in rows:
        for _ in range(100):
            if keys[other[row]] != keys[row] and captions[other[row]] != captions[row]:
                break
            other[row] = rng.integers(len(rows))
    return other


def _image_keys(pairs: Pairs) -> np.ndarray:
    import hashlib

    return np.array([hashlib.blake2b(p.tobytes(), digest_size=8).hexdigest() for p in pairs.pixels])


def _held_out(keys: np.ndarray, share: float, seed: int) -> np.ndarray:
    """True for the pairs of a random `share` of the distinct images."""
    distinct = np.unique(keys)
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    chosen = rng.permutation(distinct)[: round(share * len(distinct))]
    return np.isin(keys, chosen)


def _take(pairs: Pairs, keep: np.ndarray) -> Pairs:
    rows: Iterable[int] = np.flatnonzero(keep).tolist()
    rows = list(rows)
    return Pairs(
        [pairs.ids[i] for i in rows],
        [pairs.captions[i] for i in rows],
        pairs.pixels[rows],
        pairs.repeats[rows],
    )
