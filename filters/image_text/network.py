"""Two-tower image-text models with all that feeds them: build, load from anywhere, encode, save.

`load` takes a model directory of ours, an open_clip model with published weights or a local checkpoint, or a
folder as open_clip saves it. A model directory holds `config.json` (architecture, pixels) and
`model.safetensors`; no pickle.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from filters.image_text import checkpoints, open_clip_models
from filters.image_text.checkpoints import ModelError
from filters.image_text.pixels import Pixels, UndecodableImage
from filters.image_text.small import SMALL_DEFAULTS, HashedWords, SmallTwoTower

__all__ = [
    "SMALL_DEFAULTS",
    "HashedWords",
    "ModelError",
    "Pixels",
    "SmallTwoTower",
    "TwoTower",
    "build",
    "load",
    "save",
]

FORMAT = "winnow-clip-1"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PRECISIONS = ("fp32", "amp")


@dataclass
class TwoTower:
    """A model with everything needed to feed it: `module` has encode_image, encode_text and logit_scale.

    spec: what `build` takes; source: where the weights came from, for reports.
    """

    module: nn.Module
    pixels: Pixels
    tokenizer: Any
    spec: dict[str, Any]
    source: str = "random weights"

    def to(self, device: str | torch.device) -> TwoTower:
        """Move the weights; batches follow them."""
        self.module.to(device)
        return self

    def encode_images(
        self,
        images: Iterable[bytes],
        batch: int = 256,
        precision: str = "fp32",
        threads: int | None = None,
    ) -> np.ndarray:
        """Encoded image files → float32 [n, d], each row of length 1.

        images may be an iterator: two batches are in memory at a time. precision: see `arithmetic`. threads:
        that decode the next batch while one is encoded (default: one a core, 16 at most); no influence on the
        result. Raises UndecodableImage (a ValueError) naming the row.
        """
        done = 0
        parts = []
        try:
            for _, features in self.encode_batches(_batches(images, batch), batch, precision, threads):
                done += len(features)
                parts.append(features)
        except UndecodableImage as error:
            raise UndecodableImage(done + error.row, error.reason) from None
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def encode_batches(
        self,
        batches: Iterable[Any],
        batch: int = 256,
        precision: str = "fp32",
        threads: int | None = None,
    ) -> Iterator[tuple[Any, np.ndarray]]:
        """(batch, float32 [n, d]) for each of `batches`: lists of encoded image files, or objects with such a
        list as `.images`. The next batch is fetched and decoded while one is encoded."""
        source = iter(batches)
        threads = threads or min(16, _cores())
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(threads) as decoders:

            def prepare() -> tuple[Any, np.ndarray] | None:
                for rows in source:
                    return rows, self.pixels.many(getattr(rows, "images", rows), decoders.map)
                return None

            coming = reader.submit(prepare)
            while (ready := coming.result()) is not None:
                coming = reader.submit(prepare)
                yield ready[0], self.encode_pixels(ready[1], batch, precision)

    @torch.no_grad()
    def encode_pixels(self, pixels: np.ndarray, batch: int = 256, precision: str = "fp32") -> np.ndarray:
        """uint8 [n, size, size, 3] → float32 [n, d], each row of length 1."""
        self.module.eval()
        with self._autocast(precision):
            parts = [
                self.module.encode_image(self._pixels(pixels[i : i + batch]), normalize=True)
                .float()
                .cpu()
                .numpy()
                for i in range(0, len(pixels), batch)
            ]
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch: int = 256, precision: str = "fp32") -> np.ndarray:
        """Captions → float32 [n, d], each row of length 1."""
        self.module.eval()
        with self._autocast(precision):
            parts = [
                self.module.encode_text(self._tokens(texts[i : i + batch]), normalize=True)
                .float()
                .cpu()
                .numpy()
                for i in range(0, len(texts), batch)
            ]
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def arithmetic(self, precision: str = "fp32") -> str:
        """What a precision means on this model's device, for the record: "amp" is DataComp's, autocast to
        fp16 on a GPU. A CPU has no equal of that (bf16 rounds differently), so there it is fp32."""
        if precision not in PRECISIONS:
            raise ValueError(f'precision is "{precision}"; use one of {", ".join(PRECISIONS)}')
        return "fp16 autocast" if precision == "amp" and self.device.type == "cuda" else "fp32"

    @property
    def identity(self) -> str:
        """16 hex digits that name the weights, architecture and preprocessing, for caches: equal for the same
        model loaded from elsewhere. Reads all weights, so keep it."""
        return checkpoints.identity(
            self.module, {"model": _resolved(self.spec), "pixels": self.pixels.to_dict()}
        )

    @property
    def context(self) -> int:
        """Tokens of a text, padding included."""
        return int(getattr(self.tokenizer, "context", None) or self.tokenizer.context_length)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _autocast(self, precision: str) -> contextlib.AbstractContextManager:
        if self.arithmetic(precision) == "fp32":
            return contextlib.nullcontext()
        return torch.autocast("cuda", torch.float16)

    def _pixels(self, pixels: np.ndarray) -> torch.Tensor:
        return self.pixels.normalise(self._placed(torch.from_numpy(pixels)))

    def _tokens(self, texts: Sequence[str]) -> torch.Tensor:
        return self._placed(self.tokenizer(list(texts)))

    def _placed(self, values: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cuda":  # from pinned memory the copy runs beside the kernels
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)


def build(
    spec: Mapping[str, Any], pixels: Mapping[str, Any] | Pixels | None = None, seed: int = 0
) -> TwoTower:
    """A model with random weights drawn from `seed` (open_clip's: the ones its own factory draws from it).

    spec: {"small": {…}} overrides SMALL_DEFAULTS; {"open_clip": "ViT-B-32"} takes a config that open_clip
    ships; {"open_clip": {"embed_dim": …, "vision_cfg": …, "text_cfg": …}} is a config of that form. pixels
    default to open_clip's evaluation transform at the model's image size.
    """
    return _build(spec, pixels, seed)


def _build(
    spec: Mapping[str, Any],
    pixels: Mapping[str, Any] | Pixels | None = None,
    seed: int = 0,
    folder: Path | None = None,
) -> TwoTower:
    if len(spec) != 1 or next(iter(spec)) not in ("small", "open_clip"):
        raise ModelError(f'model is {dict(spec)}; give exactly one of "small" and "open_clip"')
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        if "small" in spec:
            settings = _resolved(spec)["small"]
            module: nn.Module = SmallTwoTower(**settings)
            tokenizer: Any = HashedWords(settings["vocab"], settings["context"])
            size, full_spec = 32, {"small": settings}
        else:
            config = open_clip_models.architecture(spec["open_clip"])
            module = open_clip_models.build(config, folder)
            tokenizer = open_clip_models.tokenizer(config, folder)
            size, full_spec = open_clip_models.image_size(config), {"open_clip": spec["open_clip"]}
    finally:
        torch.random.set_rng_state(state)
    if pixels is None:
        pixels = Pixels(size=size)
    elif not isinstance(pixels, Pixels):
        pixels = Pixels(**{"size": size, **pixels})
    return TwoTower(module, pixels, tokenizer, full_spec)


def _resolved(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A spec with every setting written out."""
    if "small" not in spec:
        return {"open_clip": open_clip_models.architecture(spec["open_clip"])}
    settings = {**SMALL_DEFAULTS, **(spec["small"] or {})}
    unknown = sorted(set(settings) - set(SMALL_DEFAULTS))
    if unknown:
        raise ModelError(f"unknown settings of the small model: {', '.join(unknown)}")
    return {"small": settings}


def save(model: TwoTower, path: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
    """Write a model directory (config last, so that a directory with a config is complete)."""
    import json

    from safetensors.torch import save_file

    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().contiguous() for name, value in model.module.state_dict().items()}
    temporary = path / (WEIGHTS + ".tmp")
    save_file(weights, str(temporary))
    temporary.replace(path / WEIGHTS)
    if "open_clip" in model.spec:
        open_clip_models.keep_text_files(model.module, model.tokenizer, model.spec["open_clip"], path)
    config = {"format": FORMAT, "model": model.spec, "pixels": model.pixels.to_dict(), **(extra or {})}
    temporary = path / (CONFIG + ".tmp")
    temporary.write_text(json.dumps(config, indent=1) + "\n")
    temporary.replace(path / CONFIG)
    return path


def load(
    model: str | Path | Mapping[str, Any],
    pretrained: str | Path | None = None,
    *,
    quick_gelu: bool | None = None,
    pixels: Pixels | None = None,
    device: str | torch.device = "cpu",
) -> TwoTower:
    """A model with weights, from wherever they are:

    * a model directory of ours;
    * a folder with open_clip_config.json, as open_clip saves it (plain, or with open_clip's `local-dir:`);
    * `hf-hub:owner/name`, or an open_clip name with a tag as `pretrained`: fetched when first used;
    * an open_clip name, the path of a configuration (JSON) or a configuration, with a checkpoint file as
      `pretrained`: a state dict, open_clip's or DataComp's `epoch_*.pt`, or safetensors.

    quick_gelu: which GELU; by default the one that published weights were trained with (OpenAI's: quick),
    with a warning where the model's name says the other. pixels: instead of the preprocessing that comes with
    the model; a checkpoint file has none, so it gets open_clip's default. Weights are never unpickled beyond
    plain tensors. Raises ModelError, which names file, tensor and mend.
    """
    found = _load(model, pretrained, quick_gelu)
    if pixels is not None:
        found.pixels = pixels
    return found.to(device)


def _load(
    model: str | Path | Mapping[str, Any], pretrained: str | Path | None, quick_gelu: bool | None
) -> TwoTower:
    if isinstance(model, Mapping):
        if pretrained is None:
            raise ModelError("a configuration has no weights; give a checkpoint file as pretrained")
        return _load_file(model, "this configuration", Path(pretrained), quick_gelu)
    name = str(model)
    directory = Path(name.removeprefix(open_clip_models.LOCAL))
    is_folder = (directory / open_clip_models.FOLDER_CONFIG).is_file()
    if is_folder or name.startswith(open_clip_models.LOCAL) or (directory / CONFIG).is_file():
        if pretrained is not None or quick_gelu is not None:
            raise ModelError(
                f"{directory} has its own weights and settings; leave pretrained and quick_gelu out"
            )
        ours = not is_folder and (directory / CONFIG).is_file()
        return _load_directory(directory) if ours else _load_folder(directory)
    if name.startswith(open_clip_models.HUB):
        return _load_published(name, None, quick_gelu)
    if pretrained is None:
        raise ModelError(
            f"{name} is not a model directory (no {CONFIG}); for an open_clip model "
            "say which weights too (--pretrained, pretrained=): "
            "a tag, or a checkpoint file"
        )
    file = Path(pretrained)
    if not (file.is_file() or file.suffix or len(file.parts) > 1):
        return _load_published(name, str(pretrained), quick_gelu)
    if directory.suffix == ".json":
        return _load_file(open_clip_models.read_json(directory), name, file, quick_gelu)
    return _load_file(name, name, file, quick_gelu)


def _load_directory(directory: Path) -> TwoTower:
    config = open_clip_models.read_json(directory / CONFIG)
    if config.get("format") != FORMAT:
        raise ModelError(
            f'{directory / CONFIG}: format is {config.get("format")!r}, this version reads "{FORMAT}"'
        )
    model = _build(config["model"], config["pixels"], folder=directory)
    return _filled(model, directory / WEIGHTS)


def _load_folder(directory: Path) -> TwoTower:
    folder = open_clip_models.read_folder(directory)
    settings = {**folder.preprocess, "size": open_clip_models.image_size(folder.config)}
    pixels = Pixels.from_open_clip(settings)
    return _filled(_build({"open_clip": folder.config}, pixels, folder=directory), folder.weights)


def _load_file(model: str | Mapping[str, Any], name: str, file: Path, quick_gelu: bool | None) -> TwoTower:
    config = open_clip_models.architecture(model)
    weights = checkpoints.read_weights(file)
    own = bool(config.get("quick_gelu", False))
    trained = True if checkpoints.is_openai(weights) else own if quick_gelu is None else quick_gelu
    used = open_clip_models.with_quick_gelu(config, name, str(file), trained, quick_gelu)
    spec = {"open_clip": model if used == config and isinstance(model, str) else used}
    pixels = Pixels.from_open_clip({"size": open_clip_models.image_size(config)})
    return _filled(_build(spec, pixels), file, weights)


def _load_published(name: str, tag: str | None, quick_gelu: bool | None) -> TwoTower:
    found = open_clip_models.fetch(name, tag, quick_gelu)
    plain = not name.startswith(open_clip_models.HUB) and found.config == open_clip_models.architecture(name)
    return TwoTower(
        found.module.eval(),
        Pixels.from_open_clip(found.preprocess),
        found.tokenizer,
        {"open_clip": name if plain else found.config},
        " ".join(filter(None, (name, tag))),
    )


def _filled(model: TwoTower, file: Path, weights: Mapping[str, torch.Tensor] | None = None) -> TwoTower:
    weights = weights or checkpoints.read_weights(file)
    try:
        checkpoints.put_into(model.module, weights, file)
    except ModelError as error:
        fitting = open_clip_models.that_fit(weights) if "open_clip" in model.spec else []
        if not fitting:
            raise
        raise ModelError(f"{error}. They fit {' or '.join(fitting)}") from None
    model.source = str(file)
    model.module.eval()
    return model


def _batches(images: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    rest = iter(images)
    while rows := list(islice(rest, size)):
        yield rows


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
