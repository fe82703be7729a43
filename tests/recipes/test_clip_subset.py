"""A DataComp subset with multiplicity, through the engine's tars, is honoured by the trainer."""

import hashlib
import io

import numpy as np
import pyarrow as pa
import pytest

import curation as c

image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
pytest.importorskip("torch", reason="torch is not installed")


def test_a_row_named_three_times_is_one_pair_of_multiplicity_three(tmp_path):
    import pyarrow.parquet as pq

    from curation.subsets import write_subset
    from filters.image_text.pixels import Pixels
    from recipes.clip.data import load_pairs

    rows = []
    for number in range(5):
        file = io.BytesIO()
        image.new("RGB", (8, 8), (number * 40, 0, 0)).save(file, "PNG")
        uid = hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()
        rows.append({"uid": uid, "text": f"picture {number}", "image": file.getvalue()})
    (tmp_path / "pool").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool" / "a.parquet")
    chosen = [rows[0]["uid"]] * 3 + [rows[3]["uid"]]
    write_subset(tmp_path / "ids.npy", pa.array(chosen))
    plan = [
        c.read(tmp_path / "pool"),
        c.subset(tmp_path / "ids.npy"),
        c.write(tmp_path / "out", format="wds"),
    ]
    assert c.run(plan, progress=False, funnel=False).rows_out == 4
    pairs = load_pairs(tmp_path / "out", Pixels(size=8))
    assert dict(zip(pairs.ids, pairs.repeats.tolist(), strict=True)) == {rows[0]["uid"]: 3, rows[3]["uid"]: 1}
    assert pairs.rows == 4 and np.asarray(pairs.pixels).shape == (2, 8, 8, 3)
