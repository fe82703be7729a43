"""Make evaluation/data/clip/digits.parquet from the digits that scikit-learn carries: `python -m
evaluation.clip.build_digits`. Committed so that the task needs no scikit-learn; a test compares the two."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.clip.embedded import DIGITS


def table() -> pa.Table:
    """label int8 and pixels (64 bytes, row by row, 0 = paper .. 16 = ink), in scikit-learn's order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = digits.images.astype(np.uint8)
    assert pixels.shape == (len(digits.target), 8, 8) and (pixels == digits.images).all()
    return pa.table(
        {
            "label": pa.array(digits.target, pa.int8()),
            "pixels": pa.array([image.tobytes() for image in pixels], pa.binary(64)),
        }
    )


if __name__ == "__main__":
    pq.write_table(table(), DIGITS, compression="zstd", compression_level=19, use_dictionary=False)
    print(f"{DIGITS}: {DIGITS.stat().st_size:,} bytes")
