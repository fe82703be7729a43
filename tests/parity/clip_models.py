"""One small open_clip model for comparisons: a configuration and a checkpoint that any program can load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAME = "winnow-parity-vit"
CONFIG = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def write(folder: Path, seed: int = 3) -> tuple[Path, Path]:
    """(configuration, checkpoint) in a folder.

    Random weights answer every picture with the same class, which would hide mistakes: all vectors of a tower
    lie close together. So here what the vectors of some pictures, and of some texts, have in common is taken
    away by the bias of each tower's last normalisation.
    """
    import torch

    from evaluation.clip import embedded
    from filters.image_text import network

    model = network.build({"open_clip": CONFIG}, seed=seed)
    visual, module = model.module.visual, model.module
    pictures = embedded.sets()["demo"].table["image"].to_pylist()[::20]
    texts = [
        f"{a}{b}" for a in ("a photo of a ", "the ", "") for b in ("cat", "dog", "red car", "thing 3", "flag")
    ]
    ends = model.tokenizer(texts).argmax(-1)  # where a text's vector is read off

    def centre(norm: torch.nn.Module, run: Any, read: Any) -> None:
        seen: list[torch.Tensor] = []
        hook = norm.register_forward_hook(lambda _, args, out: seen.append(out))
        run()
        hook.remove()
        norm.bias -= read(torch.cat(seen)).mean(0)

    with torch.no_grad():
        centre(visual.ln_post, lambda: model.encode_images(pictures), lambda x: x[:, 0] if x.ndim == 3 else x)
        centre(module.ln_final, lambda: model.encode_texts(texts), lambda x: x[torch.arange(len(ends)), ends])
    config, weights = folder / f"{NAME}.json", folder / "weights.pt"
    config.write_text(json.dumps(CONFIG))
    torch.save(module.state_dict(), weights)
    return config, weights
