"""Barriers: steps that need the whole pool. Deduplication, selection of an exact size, shuffle, reshard."""

from curation.barriers.base import Decide, Decision, Rearrange, Totals
from curation.barriers.bff import dedup_bff
from curation.barriers.exact import dedup_exact
from curation.barriers.minhash import dedup_minhash
from curation.barriers.rearrange import reshard, shuffle
from curation.barriers.select import sample, top_fraction
from curation.barriers.subset import subset

__all__ = [
    "Decide",
    "Decision",
    "Rearrange",
    "Totals",
    "dedup_bff",
    "dedup_exact",
    "dedup_minhash",
    "reshard",
    "sample",
    "shuffle",
    "subset",
    "top_fraction",
]
