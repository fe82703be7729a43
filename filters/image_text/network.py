"""Two-tower image-text models: a small one for CPUs, open_clip's by name or config, and how both are stored.

A model directory holds `config.json` (architecture, pixels, text) and `model.safetensors`; no pickle.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from filters.image_text.pixels import Pixels

FORMAT = "winnow-clip-1"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
SMALL_DEFAULTS: dict[str, Any] = {
    "widths": [32, 64, 128],
    "embed_dim": 128,
    "vocab": 4096,
    "text_width": 96,
    "context": 16,
    "text_init": 0.02,
}
WORD = re.compile(r"\w+")


class ModelError(ValueError):
    """A model cannot be built or loaded; the message says what was found and the mend."""


class HashedWords:
    """Tokeniser of the small model: lower-case words hashed (CRC-32) into `vocab` ids; 0 is padding.

    texts → int64 [n, context]. Words past `context` are dropped. No vocabulary file, same ids everywhere.
    """

    def __init__(self, vocab: int, context: int):
        self.vocab, self.context = vocab, context
        self._ids: dict[str, int] = {}

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        out = np.zeros((len(texts), self.context), np.int64)
        ids = self._ids
        for row, text in enumerate(texts):
            for at, word in enumerate(WORD.findall(text.lower())[: self.context]):
                token = ids.get(word)
                if token is None:
                    token = ids[word] = 1 + zlib.crc32(word.encode()) % (self.vocab - 1)
                out[row, at] = token
        return torch.from_numpy(out)


class SmallTwoTower(nn.Module):
    """0.5 M-parameter CLIP for CPUs: patch-stem convolutions for images, a bag of hashed words for text.

    image float32 [n, 3, s, s] → 4×4 patches → two 3×3 stride-2 convolutions → mean → linear [n, embed_dim].
    text int64 [n, context] → summed embeddings → LayerNorm → linear [n, embed_dim]. Both come out normalised.
    """

    def __init__(
        self,
        widths: Sequence[int],
        embed_dim: int,
        vocab: int,
        text_width: int,
        context: int,
        text_init: float = 0.02,
    ):
        super().__init__()
        a, b, d = widths
        self.visual = nn.Sequential(
            *_conv(3, a, kernel=4, stride=4, padding=0),
            *_conv(a, b, kernel=3, stride=2, padding=1),
            *_conv(b, d, kernel=3, stride=2, padding=1),
        )
        self.visual_proj = nn.Linear(d, embed_dim, bias=False)
        self.words = nn.EmbeddingBag(vocab, text_width, mode="sum", padding_idx=0)
        with torch.no_grad():  # unit variance, the default, drowns what few updates a rare word gets
            self.words.weight.mul_(text_init)
        self.text_norm = nn.LayerNorm(text_width)
        self.text_proj = nn.Linear(text_width, embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode_image(self, image: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        out = self.visual_proj(self.visual(image).mean((2, 3)))
        return F.normalize(out, dim=-1) if normalize else out

    def encode_text(self, text: torch.Tensor, normalize: bool = True) -> torch.Tensor:
        out = self.text_proj(self.text_norm(self.words(text)))
        return F.normalize(out, dim=-1) if normalize else out


def _conv(n_in: int, n_out: int, kernel: int, stride: int, padding: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


@dataclass
class TwoTower:
    """A model with everything needed to feed it: `module` has encode_image, encode_text and logit_scale."""

    module: nn.Module
    pixels: Pixels
    tokenizer: Any
    spec: dict[str, Any]

    @torch.no_grad()
    def encode_images(self, images: Sequence[bytes], batch: int = 256) -> np.ndarray:
        """Encoded image files → float32 [n, d], each row of length 1."""
        return self.encode_pixels(self.pixels.many(images), batch)

    @torch.no_grad()
    def encode_pixels(self, pixels: np.ndarray, batch: int = 256) -> np.ndarray:
        """uint8 [n, size, size, 3] → float32 [n, d], each row of length 1."""
        self.module.eval()
        parts = [
            self.module.encode_image(self._pixels(pixels[i : i + batch]), normalize=True)
            .float()
            .cpu()
            .numpy()
            for i in range(0, len(pixels), batch)
        ]
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch: int = 256) -> np.ndarray:
        """Captions → float32 [n, d], each row of length 1."""
        self.module.eval()
        parts = [
            self.module.encode_text(self._tokens(texts[i : i + batch]), normalize=True).float().cpu().numpy()
            for i in range(0, len(texts), batch)
        ]
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    @property
    def context(self) -> int:
        """Tokens of a text, padding included."""
        return int(getattr(self.tokenizer, "context", None) or self.tokenizer.context_length)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _pixels(self, pixels: np.ndarray) -> torch.Tensor:
        return self.pixels.normalise(torch.from_numpy(pixels).to(self.device))

    def _tokens(self, texts: Sequence[str]) -> torch.Tensor:
        return self.tokenizer(list(texts)).to(self.device)


def build(
    spec: Mapping[str, Any], pixels: Mapping[str, Any] | Pixels | None = None, seed: int = 0
) -> TwoTower:
    """A model with random weights drawn from `seed`.

    spec: {"small": {…}} overrides SMALL_DEFAULTS; {"open_clip": "ViT-B-32"} takes a config that open_clip
    ships; {"open_clip": {"embed_dim": …, "vision_cfg": …, "text_cfg": …}} is a config of that form. pixels
    default to open_clip's evaluation transform at the model's image size.
    """
    if len(spec) != 1 or next(iter(spec)) not in ("small", "open_clip"):
        raise ModelError(f'model is {dict(spec)}; give exactly one of "small" and "open_clip"')
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        if "small" in spec:
            settings = {**SMALL_DEFAULTS, **(spec["small"] or {})}
            unknown = sorted(set(settings) - set(SMALL_DEFAULTS))
            if unknown:
                raise ModelError(f"unknown settings of the small model: {', '.join(unknown)}")
            module: nn.Module = SmallTwoTower(**settings)
            tokenizer: Any = HashedWords(settings["vocab"], settings["context"])
            size, full_spec = 32, {"small": settings}
        else:
            module, tokenizer, size = _open_clip(spec["open_clip"])
            full_spec = {"open_clip": spec["open_clip"]}
    finally:
        torch.random.set_rng_state(state)
    if pixels is None:
        pixels = Pixels(size=size)
    elif not isinstance(pixels, Pixels):
        pixels = Pixels(**{"size": size, **pixels})
    return TwoTower(module, pixels, tokenizer, full_spec)


def _open_clip(name_or_config: str | Mapping[str, Any]) -> tuple[nn.Module, Any, int]:
    import open_clip

    if isinstance(name_or_config, str):
        config = open_clip.get_model_config(name_or_config)
        if config is None:
            raise ModelError(f'open_clip has no model "{name_or_config}"; see open_clip.list_models()')
    else:
        config = json.loads(json.dumps(name_or_config))
    if "hf_tokenizer_name" in config.get("text_cfg", {}) or "hf_model_name" in config.get("text_cfg", {}):
        raise ModelError(
            "models with a text tower from a hub are not supported: they need a download to build"
        )
    module = open_clip.model.CLIP(**{k: v for k, v in config.items() if k != "custom_text"})
    text = config.get("text_cfg", {})
    tokenizer = open_clip.SimpleTokenizer(context_length=text.get("context_length", 77))
    size = config["vision_cfg"]["image_size"]
    return module, tokenizer, size if isinstance(size, int) else size[0]


def save(model: TwoTower, path: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
    """Write a model directory (config last, so that a directory with a config is complete)."""
    from safetensors.torch import save_file

    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().contiguous() for name, value in model.module.state_dict().items()}
    temporary = path / (WEIGHTS + ".tmp")
    save_file(weights, str(temporary))
    temporary.replace(path / WEIGHTS)
    config = {"format": FORMAT, "model": model.spec, "pixels": asdict(model.pixels), **(extra or {})}
    temporary = path / (CONFIG + ".tmp")
    temporary.write_text(json.dumps(config, indent=1) + "\n")
    temporary.replace(path / CONFIG)
    return path


def load(path: str | Path, pretrained: str | None = None) -> TwoTower:
    """A model directory, or an open_clip model name with `pretrained` (a tag, or a local checkpoint file).

    Weights are read from safetensors or with `weights_only=True`; a pickle that needs more is refused.
    """
    directory = Path(path)
    if (directory / CONFIG).is_file():
        if pretrained is not None:
            raise ModelError(f"{directory} has its own weights; leave pretrained out")
        return _load_directory(directory)
    if pretrained is None:
        raise ModelError(
            f"{path} is not a model directory (no {CONFIG}); for an open_clip model give pretrained= too: "
            "a tag, or a checkpoint file"
        )
    if Path(pretrained).is_file():
        model = build({"open_clip": str(path)})
        _load_weights(model.module, Path(pretrained))
        return model
    return _load_open_clip(str(path), pretrained)


def _load_directory(directory: Path) -> TwoTower:
    config = json.loads((directory / CONFIG).read_text())
    if config.get("format") != FORMAT:
        raise ModelError(
            f'{directory / CONFIG}: format is {config.get("format")!r}, this version reads "{FORMAT}"'
        )
    model = build(config["model"], config["pixels"])
    _load_weights(model.module, directory / WEIGHTS)
    return model


def _load_weights(module: nn.Module, path: Path) -> None:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        weights = load_file(str(path))
    else:
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ModelError(
                f"{path}: not loadable as plain weights ({error}); convert it to safetensors"
            ) from error
        weights = weights.get("state_dict", weights)
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"{path}: weights of another architecture: {str(error)[:300]}") from None
    for name, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{path}: tensor {name} holds NaN or infinity")


def _load_open_clip(name: str, pretrained: str) -> TwoTower:
    import open_clip

    module, _, transform = open_clip.create_model_and_transforms(name, pretrained=pretrained)
    config = open_clip.get_model_preprocess_cfg(module)
    del transform
    size = config["size"] if isinstance(config["size"], int) else config["size"][0]
    pixels = Pixels(size=size, mean=config["mean"], std=config["std"])
    return TwoTower(
        module, pixels, open_clip.get_tokenizer(name), {"open_clip": name, "pretrained": pretrained}
    )
