"""What a CLIP run says while it works: one line a step."""

from __future__ import annotations

from typing import Any

from recipes.training.progress import Pace


class Meter(Pace):
    """The pace of a run in samples, and how much of a step was spent waiting for its data."""

    def line(self, record: dict[str, Any]) -> str:
        mfu = f"  MFU {self.mfu_in_words}" if self.mfu is not None else ""
        return (
            f"step {record['step']:>{len(str(self.steps))}}/{self.steps}  loss {record['loss']:6.3f}  "
            f"lr {record['lr']:.2e}  scale {record['logit_scale']:6.2f}  {self.a_second:8,.0f} samples/s  "
            f"data {record['data_wait']:4.0%}{mfu}  memory {self.memory / 1e9:.2f} GB  "
            f"ETA {self.left(record['step'])}"
        )
