"""open_clip's models by name, configuration, folder or tag: architecture, tokeniser and preprocessing.

Nothing here needs a network, except weights asked for by tag or by `hf-hub:`.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from filters.image_text.checkpoints import ModelError

FOLDER_CONFIG = "open_clip_config.json"
FOLDER_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
)
HUB, LOCAL = "hf-hub:", "local-dir:"
NEEDED = ("embed_dim", "vision_cfg", "text_cfg")


@dataclass(frozen=True)
class Folder:
    """What open_clip saves for a hub. preprocess: its preprocess settings."""

    config: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Path


@dataclass(frozen=True)
class Published:
    """A model as fetched. preprocess: its preprocess settings."""

    module: nn.Module
    tokenizer: Any
    config: dict[str, Any]
    preprocess: dict[str, Any]


def architecture(name_or_config: str | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a model by its name in open_clip, or a checked copy of one given as a mapping."""
    import open_clip

    if isinstance(name_or_config, str):
        config = open_clip.get_model_config(name_or_config.replace("/", "-"))
        if config is None:
            raise ModelError(
                f'open_clip has no model "{name_or_config}"{_near(name_or_config)}; '
                "open_clip.list_models() has all"
            )
        return config
    config = json.loads(json.dumps(name_or_config))
    config = config.get("model_cfg", config)
    missing = [key for key in NEEDED if key not in config]
    if missing:
        raise ModelError(
            f"an open_clip configuration needs {', '.join(NEEDED)}; {', '.join(missing)} missing"
        )
    return config


def build(config: Mapping[str, Any], folder: Path | None = None) -> nn.Module:
    """The module of a configuration with random weights, as open_clip's factory builds it.

    A text tower that transformers builds must be described in `folder` or in the local hub cache.
    """
    import open_clip

    config = json.loads(json.dumps(config))
    if config["vision_cfg"].get("timm_model_name"):
        config["vision_cfg"]["timm_model_pretrained"] = False
    name = config["text_cfg"].get("hf_model_name")
    if name:
        what = f"its text tower is {name}, which transformers builds from a description on a hub"
        config["text_cfg"]["hf_model_name"] = str(
            _local(name, [folder and folder / name], ("config.json",), what)
        )
        config["text_cfg"]["hf_model_pretrained"] = False
    apart = config.pop("custom_text", False) or name
    kind = open_clip.CLIP
    if apart:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        return kind(**config)
    except (TypeError, ValueError, AssertionError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"open_clip cannot build this configuration ({type(error).__name__}: {error})"
        ) from error


def tokenizer(config: Mapping[str, Any], folder: Path | None = None) -> Any:
    """texts → int64 [n, context]. One from transformers must lie in `folder` or in the local hub cache."""
    import open_clip

    text = config["text_cfg"]
    context = text.get("context_length", 77)
    settings = text.get("tokenizer_kwargs") or {}
    name = text.get("hf_tokenizer_name")
    if not name:
        return open_clip.SimpleTokenizer(context_length=context, **settings)
    files = ("tokenizer_config.json", "tokenizer.json")
    place = _local(name, [folder], files, f"its tokenizer is {name}, which is on a hub")
    return open_clip.tokenizer.HFTokenizer(
        str(place), context_length=context, tokenizer_mode=text.get("tokenizer_mode"), **settings
    )


def keep_text_files(
    module: nn.Module, words: Any, name_or_config: str | Mapping[str, Any], folder: Path
) -> None:
    """Write what `tokenizer` and `build` read from a folder, where these come from transformers."""
    text = architecture(name_or_config)["text_cfg"]
    if text.get("hf_tokenizer_name") and hasattr(words, "save_pretrained"):
        words.save_pretrained(str(folder))
    name = text.get("hf_model_name")
    if name and not Path(name).is_absolute():
        module.text.config.save_pretrained(str(folder / name))  # type: ignore[union-attr]


def image_size(config: Mapping[str, Any]) -> int:
    """Side of the images a configuration takes, in pixels."""
    size = config["vision_cfg"].get("image_size", 224)
    if not isinstance(size, int):
        if len(set(size)) > 1:
            raise ModelError(f"image_size is {list(size)}; only square images are supported")
        size = size[0]
    return size


def that_fit(weights: Mapping[str, Any]) -> list[str]:
    """Names of open_clip's own transformers with the shapes of these weights; to mend a wrong name."""
    import open_clip

    weights = {name.removeprefix("text."): value for name, value in weights.items()}
    patches, tokens = weights.get("visual.conv1.weight"), weights.get("token_embedding.weight")
    if patches is None or patches.ndim != 4 or tokens is None or "visual.proj" not in weights:
        return []

    def blocks(prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})

    found = {
        "embed_dim": weights["visual.proj"].shape[1],
        "width": patches.shape[0],
        "patch": patches.shape[-1],
        "positions": weights["visual.positional_embedding"].shape[0],
        "layers": blocks("visual.transformer.resblocks."),
        "text_width": tokens.shape[1],
        "text_layers": blocks("transformer.resblocks."),
    }
    return [name for name in open_clip.list_models() if _shape(architecture(name)) == found]


def _shape(config: Mapping[str, Any]) -> dict[str, int] | None:
    vision, text = config["vision_cfg"], config["text_cfg"]
    if vision.get("timm_model_name") or text.get("hf_model_name") or not isinstance(vision["layers"], int):
        return None
    patch = vision["patch_size"]
    return {
        "embed_dim": config["embed_dim"],
        "width": vision["width"],
        "patch": patch,
        "positions": (image_size(config) // patch) ** 2 + 1,
        "layers": vision["layers"],
        "text_width": text.get("width", 512),
        "text_layers": text.get("layers", 12),
    }


def read_folder(path: Path) -> Folder:
    """A folder as open_clip saves it for a hub. ModelError names the file that is missing or unreadable."""
    if not path.is_dir():
        raise ModelError(f"{path}: no such folder")
    file = path / FOLDER_CONFIG
    if not file.is_file():
        raise ModelError(f"{path}: no {FOLDER_CONFIG} in it, so the architecture of its weights is not known")
    values = read_json(file)
    if not isinstance(values.get("model_cfg"), dict):
        raise ModelError(f"{file}: no model_cfg in it")
    weights = next((path / name for name in FOLDER_WEIGHTS if (path / name).is_file()), None)
    if weights is None:
        raise ModelError(f"{path}: no weights in it; expected one of {', '.join(FOLDER_WEIGHTS)}")
    return Folder(architecture(values["model_cfg"]), values.get("preprocess_cfg") or {}, weights)


def read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: expected a mapping, found {type(values).__name__}")
    return values


def fetch(name: str, tag: str | None, quick_gelu: bool | None = None) -> Published:
    """A model with published weights, by name and tag or by `hf-hub:owner/name`; downloads what is not there
    yet, safetensors or plain weights only."""
    import open_clip

    if name.startswith(HUB):
        if quick_gelu is not None:
            raise ModelError(f"{name}: its own configuration says which GELU it has; leave quick_gelu out")
        settings = {}
    else:
        config = architecture(name)
        name = name.replace("/", "-")
        published = open_clip.get_pretrained_cfg(name, tag)
        if not published:
            known = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
            raise ModelError(
                f'{name} has no weights "{tag}" in open_clip (it has {known}) and there is no such file'
            )
        config = with_quick_gelu(config, name, f'"{tag}"', bool(published.get("quick_gelu")), quick_gelu)
        settings = {"quick_gelu": bool(config.get("quick_gelu", False))}
    try:
        with warnings.catch_warnings():
            # open_clip compares the tag with the name, and not with what is used
            warnings.filterwarnings("ignore", "QuickGELU mismatch")
            module = open_clip.create_model(name, tag, require_pretrained=True, **settings)
        words = open_clip.get_tokenizer(name)
        if name.startswith(HUB):
            config = open_clip.get_model_config(name)
    except (RuntimeError, OSError, ValueError) as error:
        raise ModelError(f"{name} {tag or ''}: could not be fetched ({error})") from error
    return Published(module, words, config, open_clip.get_model_preprocess_cfg(module))


def with_quick_gelu(
    config: dict[str, Any], name: str, weights: str, trained: bool, wanted: bool | None
) -> dict[str, Any]:
    """The configuration with the activation that the weights were trained with (`trained`), said in a warning
    when the model's name says another, or with the one asked for (`wanted`)."""
    has = bool(config.get("quick_gelu", False))
    use = trained if wanted is None else wanted
    kinds = {True: "quick GELU", False: "exact GELU"}
    if use != trained:
        warnings.warn(
            f"{weights} was trained with {kinds[trained]} and is used with {kinds[use]}, as asked: its "
            "features will differ from its authors'",
            stacklevel=5,
        )
    elif wanted is None and use != has:
        warnings.warn(
            f"{weights} was trained with {kinds[trained]} but {name} stands for {kinds[has]}: loaded with "
            f"{kinds[use]}. quick_gelu={use} says so without this warning",
            stacklevel=5,
        )
    return config if use == has else {**config, "quick_gelu": use}


def _local(name: str, places: list[Path | None], files: tuple[str, ...], what: str) -> Path:
    """The folder that holds one of `files`: among `places`, the folder `name`, or the local hub cache."""
    for place in [*places, Path(name)]:
        if place is not None and any((place / file).is_file() for file in files):
            return place
    try:
        from huggingface_hub import snapshot_download

        place = Path(snapshot_download(name, local_files_only=True))
        if not any((place / file).is_file() for file in files):
            raise FileNotFoundError(f"{place} has none of {', '.join(files)}")
        return place
    except Exception as error:  # not installed, not cached, or no name of a hub at all
        raise ModelError(
            f"this model cannot be built without a network: {what}. Put its files into a local folder, or "
            "fetch them once into the hub cache, or take a model that open_clip describes alone"
        ) from error


def _near(name: str) -> str:
    import difflib

    import open_clip

    near = difflib.get_close_matches(name, open_clip.list_models(), 1)
    return f' (nearest: "{near[0]}")' if near else ""
