"""Checkpoints of open_lm, the trainer of DCLM, as model folders of ours, and ours as open_lm loads them.

    python -m recipes.lm.open_lm import epoch_6.pt --config open_lm_1b_swiglutorch.json --params params.txt \
        --tokenizer gpt-neox-20b --out models/dclm-1b
    python -m recipes.lm.open_lm export models/rules-0 --out exported/

``import`` takes ``.pt`` and ``.bin`` files (read without running any code in them), safetensors, and folders
in Hugging Face's layout with open_lm's names. Only the architecture of DCLM's models fits; any other is
refused with everything that differs. What weights cannot tell (the kind of norm, of rotary positions, the
number of heads) must be said by the model's JSON, by the run's ``params.txt`` or with ``--set``.

``export`` writes ``epoch_1.pt`` and ``model.json`` for open_lm's ``--resume``/``--model``. There is no export
to a class of `transformers`: none of them has gain-only LayerNorm together with query/key norms over the full
vector (Llama has RMSNorm and no query/key norm). ``evaluation.lm.lm_eval_adapter`` opens our folders for
lm-eval instead.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from recipes import scale as scales

if TYPE_CHECKING:
    from torch import Tensor

    from recipes.lm.model import Shape

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Hugging Face's names for open_lm's settings
ALIASES = {"dim": "hidden_dim", "norm_type": "model_norm", "apply_qk_norm": "qk_norm"}
# What a setting must be for the model to be of DCLM's family; the first value is what DCLM itself uses.
FITS: dict[str, tuple[Any, ...]] = {
    "model_norm": ("gain_only_lp_layer_norm", "gain_only_layer_norm"),
    "positional_embedding_type": ("rotary",),
    "ffn_type": ("swiglu_torch", "swiglu"),
    "post_embed_norm": (False,),
    "moe_freq": (0,),
    "attn_name": ("auto", "xformers_attn", "xformers_attn_variable_length", "torch_attn"),
}
MUST_BE_SAID = ("model_norm", "positional_embedding_type")  # weights look the same either way
BASES = (
    10_000.0,
    100_000.0,
    500_000.0,
    1_000_000.0,
)  # of rotary positions; open_lm has the first only

TOP = {
    "tok_embeddings.weight": "embedding.weight",
    "norm.weight": "norm.weight",
    "output.weight": "head.weight",
}
BLOCK = {
    "attention_norm.weight": "attention_norm.weight",
    "attention.in_proj.weight": "attention.qkv.weight",
    "attention.q_norm.weight": "attention.q_norm.weight",
    "attention.k_norm.weight": "attention.k_norm.weight",
    "attention.out_proj.weight": "attention.out.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "feed_forward.w12.weight": "ffn.gate_up.weight",
    "feed_forward.w3.weight": "ffn.down.weight",
}


class OpenLMError(ValueError):
    """A checkpoint that cannot be read, or is of another architecture; the message lists what differs."""


def import_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path,
    config: str | Path | None = None,
    params: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Shape:
    """Write the model folder ``out`` (model.safetensors, config.json, tokenizer.json); returns its shape.

    ``config`` is the model's JSON (open_lm's, or Hugging Face's, found beside the weights), ``params`` the
    run's params.txt, ``settings`` says what neither does; where they disagree the first of them wins, as in
    open_lm.
    ``tokenizer`` is as in ``recipes.lm.encode.load``. Weights keep their precision. Raises OpenLMError.
    """
    from recipes.lm import encode, run_folder

    checkpoint, out = Path(checkpoint), Path(out)
    if (out / run_folder.CONFIG).exists():
        raise OpenLMError(f"{out} holds a model already; choose another folder")
    if config is None and checkpoint.is_dir() and (checkpoint / "config.json").is_file():
        config = checkpoint / "config.json"
    said = {**(settings or {}), **_params(params), **_config(config)}
    tensors, progress = _read(checkpoint)
    shape, ours = convert(tensors, said, str(checkpoint))
    encoder = encode.load(tokenizer)
    if encoder.vocab > shape.vocab:
        raise OpenLMError(
            f"tokenizer {str(tokenizer)!r} has ids up to {encoder.vocab - 1}, the model only {shape.vocab} "
            "entries; it was trained with another"
        )
    out.mkdir(parents=True, exist_ok=True)
    _save(out / run_folder.MODEL, ours)
    shutil.copyfile(encoder.path, out / run_folder.TOKENIZER)
    name = Path(config).stem if config and Path(config).stem != "config" else checkpoint.stem
    scale = scales.Scale(f"open_lm:{name}", "text", {"model": asdict(shape)})
    origin = {"format": "open_lm", "file": checkpoint.name, "sha256": _digest(checkpoint), **progress}
    record = {
        "scale": scale.to_dict(),
        "scale_hash": scale.hash,
        "seed": None,
        "data": None,
        "origin": {**origin, "settings": {key: said[key] for key in sorted(FITS) if key in said}},
    }
    text = json.dumps(record, indent=1) + "\n"
    (out / run_folder.CONFIG).write_text(text, encoding="utf-8")  # last: its presence says that all is there
    return shape


def export_checkpoint(model_dir: str | Path, out: str | Path) -> tuple[Path, Path]:
    """Write (epoch_1.pt, model.json) of a model folder of ours into ``out``. Raises OpenLMError when open_lm
    cannot express the model, naming what differs."""
    import torch

    from recipes.lm.model import Shape
    from recipes.lm.run_folder import CONFIG, load_model

    model_dir, out = Path(model_dir), Path(out)
    model, _, config = load_model(model_dir)
    shape, plain = model.shape, Shape(model.shape.vocab, model.shape.dim, 1, model.shape.heads, 1)
    differs = [
        f"{key} is {getattr(shape, key)}, open_lm has {getattr(plain, key)} built in"
        for key in ("ffn_dim", "rope_base", "norm_eps")
        if getattr(shape, key) != getattr(plain, key)
    ]
    if differs:
        raise OpenLMError(f"{model_dir / CONFIG}: open_lm cannot load this model: {'; '.join(differs)}")
    ours = model.state_dict()
    state = {theirs: ours[own].clone() for theirs, own in names(shape.layers, shape.qk_norm).items()}
    frequency = 10_000 ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
    state |= {f"layers.{n}.attention.pos_embed.inv_freq": frequency.clone() for n in range(shape.layers)}
    described = {
        "hidden_dim": shape.dim,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "seq_len": shape.context,
        "vocab_size": shape.vocab,
        "post_embed_norm": False,
        "weight_tying": shape.tied,
        "model_norm": FITS["model_norm"][0],
        "qk_norm": shape.qk_norm,
        "positional_embedding_type": "rotary",
        "ffn_type": "swiglu_torch",
    }
    out.mkdir(parents=True, exist_ok=True)
    weights, description = out / "epoch_1.pt", out / "model.json"
    partial = weights.with_name(weights.name + ".partial")
    torch.save({"epoch": 1, "name": config["scale"]["name"], "state_dict": state}, partial)
    partial.replace(weights)
    description.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return weights, description


def names(layers: int, qk_norm: bool) -> dict[str, str]:
    """open_lm's name of every parameter -> ours."""
    table = dict(TOP)
    for n in range(layers):
        for theirs, own in BLOCK.items():
            if qk_norm or not re.search("[qk]_norm", theirs):
                table[f"layers.{n}.{theirs}"] = f"blocks.{n}.{own}"
    return table


def convert(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], where: str = "checkpoint"
) -> tuple[Shape, dict[str, Tensor]]:
    """(shape, our state dict) of an open_lm state dict. Raises OpenLMError with all that does not fit."""
    import torch

    from recipes.lm.model import Shape

    state = _packed({_bare(name): tensor for name, tensor in tensors.items()})
    frequencies = {k: state.pop(k) for k in list(state) if k.endswith("pos_embed.inv_freq")}
    wrong = _unfit(settings)
    embedding = state.get("tok_embeddings.weight")
    if embedding is None or embedding.dim() != 2:
        found = ", ".join(sorted(state)[:4]) or "nothing"
        raise OpenLMError(f"{where}: no tok_embeddings.weight, so not a model of open_lm; found {found}, …")
    vocab, dim = embedding.shape
    layers = 1 + max((int(m[1]) for m in map(re.compile(r"layers\.(\d+)\.").match, state) if m), default=-1)
    qk_norm = "layers.0.attention.q_norm.weight" in state
    table = names(layers, qk_norm)
    missing, unknown = sorted(set(table) - set(state)), sorted(set(state) - set(table))
    wrong += [f"{_few(unknown)}: no such parameter in DCLM's architecture"] * bool(unknown)
    wrong += [f"{_few(missing)}: missing"] * bool(missing)
    heads = settings.get("n_heads")
    if heads is None and frequencies:
        heads = dim // (2 * len(next(iter(frequencies.values()))))
    context = settings.get("seq_len")
    wrong += ["n_heads: not said anywhere; give the model's JSON or --set n_heads=…"] * (heads is None)
    wrong += ["seq_len: not said anywhere; give the model's JSON or --set seq_len=…"] * (context is None)
    for key, value in {
        "hidden_dim": dim,
        "vocab_size": vocab,
        "n_layers": layers,
        "qk_norm": qk_norm,
    }.items():
        if key in settings and settings[key] != value:
            wrong.append(f"{key} is said to be {settings[key]}, the weights have {value}")
    base = BASES[0]
    if heads is not None and not wrong:
        if dim % heads or (dim // heads) % 2:
            wrong.append(f"hidden_dim {dim} cannot be parted into {heads} heads of even size")
        else:
            base, said = _rotary_base(frequencies, dim // heads)
            wrong += said
    if wrong:
        raise OpenLMError(f"{where} does not fit DCLM's architecture:\n  " + "\n  ".join(wrong))
    assert heads is not None and context is not None
    tied = bool(settings.get("weight_tying", False))
    shape = Shape(
        vocab=vocab,
        dim=dim,
        layers=layers,
        heads=int(heads),
        context=int(context),
        tied=tied,
        qk_norm=qk_norm,
        rope_base=base,
        norm_eps=float(settings.get("norm_eps", 1e-5)),
    )
    sizes = _sizes(shape)
    for theirs, own in table.items():
        if tuple(state[theirs].shape) != sizes[own]:
            wrong.append(f"{theirs} is {tuple(state[theirs].shape)}, expected {sizes[own]}")
        elif not torch.isfinite(state[theirs]).all():
            wrong.append(f"{theirs} has values that are not finite")
    if tied and not torch.equal(embedding, state["output.weight"]):
        wrong.append("weight_tying is said, but tok_embeddings.weight and output.weight differ")
    if wrong:
        raise OpenLMError(f"{where} does not fit DCLM's architecture:\n  " + "\n  ".join(wrong))
    return shape, {own: state[theirs] for theirs, own in table.items() if not (tied and own == "head.weight")}


def _bare(name: str) -> str:
    """Without what DDP, FSDP, torch.compile and Hugging Face put around a name."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS).removeprefix("model.")


def _packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """xformers can keep gate and up apart (``w1``, ``w2``); joined they are ``w12``, gate first."""
    import torch

    for gate in [name for name in state if name.endswith(".feed_forward.w1.weight")]:
        stem = gate.removesuffix("w1.weight")
        if f"{stem}w2.weight" in state:
            state[f"{stem}w12.weight"] = torch.cat((state.pop(gate), state.pop(f"{stem}w2.weight")))
    return state


def _unfit(settings: Mapping[str, Any]) -> list[str]:
    wrong = [
        f"{key} is {settings[key]!r}; only {' or '.join(map(repr, allowed))} fits"
        for key, allowed in FITS.items()
        if key in settings and settings[key] not in (*allowed, None)
    ]
    for key in MUST_BE_SAID:
        if settings.get(key) is None:
            wrong.append(
                f"{key}: not said anywhere and not visible in the weights; give the run's params.txt, or "
                f"--set {key}={FITS[key][0]} if it is a model of DCLM's"
            )
    return wrong


def _rotary_base(frequencies: Mapping[str, Tensor], head_dim: int) -> tuple[float, list[str]]:
    """(base, complaints) from the stored frequencies, which FSDP may have rounded to bf16."""
    import torch

    bases = set()
    for name, stored in frequencies.items():
        if len(stored) != head_dim // 2:
            return 0.0, [f"{name} has {len(stored)} frequencies, heads of {head_dim} need {head_dim // 2}"]
        if not stored.any():  # a buffer that was never filled
            continue
        for base in BASES:
            table = base ** (-torch.arange(0, head_dim, 2).double() / head_dim)
            near = torch.allclose(stored.double(), table, rtol=1e-5)
            if near or torch.equal(stored.float(), table.float().bfloat16().float()):
                bases.add(base)
                break
        else:
            return 0.0, [f"{name} is no rotary table of base {', '.join(f'{b:g}' for b in BASES)}"]
    if len(bases) > 1:
        return 0.0, [f"the layers have rotary bases {', '.join(f'{b:g}' for b in sorted(bases))}; one fits"]
    return (bases or {BASES[0]}).pop(), []


def _sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Our parameters' shapes, without their memory."""
    d, width = shape.dim, shape.ffn_dim
    block = {
        "attention.qkv.weight": (3 * d, d),
        "attention.out.weight": (d, d),
        "ffn.gate_up.weight": (2 * width, d),
        "ffn.down.weight": (d, width),
    }
    sizes = {"embedding.weight": (shape.vocab, d), "head.weight": (shape.vocab, d), "norm.weight": (d,)}
    for n in range(shape.layers):
        sizes |= {f"blocks.{n}.{own}": block.get(own, (d,)) for own in BLOCK.values()}
    return sizes


def _config(path: str | Path | None) -> dict[str, Any]:
    """Settings of a model JSON, under open_lm's names."""
    if path is None:
        return {}
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise OpenLMError(f"{path}: not a model JSON: {error}") from error
    if not isinstance(values, dict):
        raise OpenLMError(f"{path}: expected a JSON object with hidden_dim, n_layers, …")
    outer = values.pop("params_args_dict", None) or {}  # how open_lm's older Hugging Face wrapper keeps them
    return {ALIASES.get(key, key): value for key, value in {**outer, **values}.items()}


def _params(path: str | Path | None) -> dict[str, Any]:
    """Settings of a run's params.txt: a line ``name: value`` each."""
    if path is None:
        return {}
    values: dict[str, Any] = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OpenLMError(f"{path}: not a params.txt: {error}") from error
    for line in lines:
        key, colon, value = line.partition(":")
        if colon and re.fullmatch(r"\w+", key):
            values[key] = _value(value)
    if not values:
        raise OpenLMError(f"{path}: no line 'name: value' here; is it the params.txt of a run?")
    # The command line's own model width etc. are elsewhere; only what create_params takes from it counts.
    return {key: values[key] for key in (*FITS, "qk_norm") if values.get(key) is not None}


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text.strip())
    except yaml.YAMLError:
        return text.strip()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state dict, epoch and step if known) of a file or a folder."""
    import torch

    found: dict[str, Any] = {}
    files = _files(path)
    for file in files:
        found |= _load(file)
    progress = {key: found[key] for key in ("epoch", "step") if isinstance(found.get(key), int)}
    state = found.get("state_dict", found)
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise OpenLMError(f"{path}: no state dict of tensors here; is it the epoch_N.pt of a run?")
    return state, progress


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for index in (path / "model.safetensors.index.json", path / "pytorch_model.bin.index.json"):
        if index.is_file():
            table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = [path / name for name in sorted(set(table.values()))]
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise OpenLMError(f"{index} names {_few(missing)}, which are not there")
            return files
    for single in (path / "model.safetensors", path / "pytorch_model.bin"):
        if single.is_file():
            return [single]
    raise OpenLMError(f"{path}: no checkpoint file and no folder with model.safetensors or pytorch_model.bin")


def _load(path: Path) -> dict[str, Any]:
    import pickle

    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise OpenLMError(f"{path}: {error}") from error
    try:
        # Tensors are mapped rather than read, which files of before torch 1.6 do not allow.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise OpenLMError(
            f"{path} holds more than tensors, and reading that would run code from the file. If you trust "
            "it, save it again as torch.save({'state_dict': checkpoint['state_dict']}, …). "
            f"({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise OpenLMError(f"{path}: not a checkpoint of torch: {error}") from error
    if not isinstance(loaded, dict):
        raise OpenLMError(f"{path}: expected a dictionary, found {type(loaded).__name__}")
    return loaded


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(path)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(path):
        with open(file, "rb") as opened:
            while block := opened.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m recipes.lm.open_lm", description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    bring = actions.add_parser("import", help="a checkpoint of open_lm into a model folder")
    bring.add_argument("checkpoint", help="epoch_N.pt, safetensors, or a folder in Hugging Face's layout")
    bring.add_argument("--out", required=True)
    bring.add_argument("--tokenizer", required=True, help="tokenizer.json or a name, e.g. gpt-neox-20b")
    bring.add_argument("--config", help="the model's JSON")
    bring.add_argument("--params", help="the run's params.txt")
    bring.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="what neither says")
    send = actions.add_parser("export", help="a model folder as open_lm loads it")
    send.add_argument("model", help="model folder")
    send.add_argument("--out", required=True)
    args = parser.parse_args(argv)
    try:
        if args.action == "export":
            weights, description = export_checkpoint(args.model, args.out)
            print(f"{weights} and {description}")
            return 0
        pairs = [item.partition("=") for item in args.set]
        bad = [key for key, equals, _ in pairs if not equals]
        if bad:
            raise OpenLMError(f"--set {bad[0]}: write NAME=VALUE")
        shape = import_checkpoint(
            args.checkpoint,
            args.out,
            tokenizer=args.tokenizer,
            config=args.config,
            params=args.params,
            settings={key: _value(value) for key, _, value in pairs},
        )
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {shape.parameters:,} parameters, {shape}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
