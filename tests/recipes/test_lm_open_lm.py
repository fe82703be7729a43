"""open_lm's checkpoints in and out, beside a tiny decoder written here under open_lm's parameter names."""

import json
import math
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recipes import scale as scales
from recipes.lm import data, open_lm
from recipes.lm.model import Decoder, Shape
from recipes.lm.open_lm import OpenLMError, export_checkpoint, import_checkpoint
from recipes.lm.train import load_model

DIM, LAYERS, HEADS, CONTEXT, VOCAB, WIDTH = 48, 2, 4, 16, 4200, 256
CONFIG = {
    "hidden_dim": DIM,
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "seq_len": CONTEXT,
    "vocab_size": VOCAB,
    "post_embed_norm": False,
    "weight_tying": False,
}
PARAMS = """acc: 1
attn_activation: None
attn_name: auto
data_key: json.gz
ffn_type: swiglu_torch
lr: 0.003
model: open_lm_1b_swiglutorch
model_norm: gain_only_lp_layer_norm
positional_embedding_type: rotary
precision: amp_bfloat16
qk_norm: True
train_data: None
"""


class Peer(nn.Module):
    """DCLM's decoder with open_lm's names; complex numbers for positions, attention written out."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)

        def matrix(rows: int, columns: int) -> nn.Module:
            layer = nn.Linear(columns, rows, bias=False)
            layer.weight.data = torch.randn(rows, columns, generator=draw) / math.sqrt(columns)
            return layer

        def gain() -> nn.Module:
            norm = nn.LayerNorm(DIM, eps=1e-5, bias=False)
            norm.weight.data = 1 + torch.randn(DIM, generator=draw) / 4
            return norm

        self.tok_embeddings, self.output, self.norm = nn.Embedding(VOCAB, DIM), matrix(VOCAB, DIM), gain()
        self.tok_embeddings.weight.data = torch.randn(VOCAB, DIM, generator=draw)
        self.layers = nn.ModuleList()
        for _ in range(LAYERS):
            layer, attention, ffn = nn.Module(), nn.Module(), nn.Module()
            attention.in_proj, attention.out_proj = matrix(3 * DIM, DIM), matrix(DIM, DIM)
            attention.q_norm, attention.k_norm, attention.pos_embed = gain(), gain(), nn.Module()
            frequency = 1 / 10_000 ** (torch.arange(0, DIM // HEADS, 2).float() / (DIM // HEADS))
            attention.pos_embed.register_buffer("inv_freq", frequency)
            ffn.w12, ffn.w3 = matrix(2 * WIDTH, DIM), matrix(DIM, WIDTH)
            layer.attention, layer.feed_forward, layer.attention_norm, layer.ffn_norm = (
                attention,
                ffn,
                gain(),
                gain(),
            )
            self.layers.append(layer)

    def forward(self, ids: Tensor) -> Tensor:
        b, t = ids.shape
        x = self.tok_embeddings(ids)
        for layer in self.layers:
            a = layer.attention
            q, k, v = a.in_proj(layer.attention_norm(x)).split(DIM, dim=2)
            q, k, v = (y.reshape(b, t, HEADS, -1) for y in (a.q_norm(q), a.k_norm(k), v))
            turn = torch.polar(torch.ones(1), torch.outer(torch.arange(t), a.pos_embed.inv_freq))[:, None]
            half = DIM // HEADS // 2

            def turned(y: Tensor, turn: Tensor = turn, half: int = half) -> Tensor:
                z = torch.complex(y[..., :half], y[..., half:]) * turn
                return torch.cat((z.real, z.imag), dim=-1)

            scores = torch.einsum("bqhd,bkhd->bhqk", turned(q), turned(k)) / math.sqrt(2 * half)
            scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), -math.inf)
            mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).reshape(b, t, DIM)
            x = x + a.out_proj(mixed)
            f = layer.feed_forward
            gate, up = f.w12(layer.ffn_norm(x)).split(WIDTH, dim=2)
            x = x + f.w3(gate * torch.sigmoid(gate) * up)
        return self.output(self.norm(x))


@pytest.fixture(scope="module")
def peer() -> Peer:
    return Peer().eval()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "tiny.json").write_text(json.dumps(CONFIG))
    (tmp_path / "params.txt").write_text(PARAMS)
    return {"config": tmp_path / "tiny.json", "params": tmp_path / "params.txt"}


def bring(checkpoint: Path, out: Path, **more) -> Decoder:
    import_checkpoint(checkpoint, out, tokenizer="bpe4096", **more)
    return load_model(out)[0]


def same(model: Decoder, peer: Peer) -> None:
    ids = torch.randint(0, VOCAB, (3, CONTEXT), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(ids), peer(ids), atol=2e-5, rtol=1e-4)


PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module.", "model."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_training_checkpoint_gives_the_same_logits(tmp_path, files, peer: Peer, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in peer.state_dict().items()}
    if "fsdp" in prefix:
        state = {
            name.replace("layers.0.", "layers.0._fsdp_wrapped_module.").replace(
                "layers.1.", "layers.1._checkpoint_wrapped_module."
            ): tensor
            for name, tensor in state.items()
        }
    saved = {
        "epoch": 6,
        "step": 7851,
        "name": "run",
        "state_dict": state,
        "evaluation_metrics": [{"loss": 2.5}],
    }
    torch.save(saved, tmp_path / "epoch_6.pt")
    model = bring(tmp_path / "epoch_6.pt", tmp_path / "ours", **files)
    same(model, peer)
    assert model.shape == Shape(VOCAB, DIM, LAYERS, HEADS, CONTEXT)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config["origin"]["step"] == 7851 and len(config["origin"]["sha256"]) == 64
    assert config["origin"]["settings"]["model_norm"] == "gain_only_lp_layer_norm"
    assert config["scale"]["name"] == "open_lm:tiny"


def test_gate_and_up_apart_as_xformers_may_keep_them(tmp_path, files, peer: Peer) -> None:
    state = dict(peer.state_dict())
    for n in range(LAYERS):
        stem = f"layers.{n}.feed_forward."
        state[stem + "w1.weight"], state[stem + "w2.weight"] = state.pop(stem + "w12.weight").chunk(2)
    torch.save(state, tmp_path / "bare.pt")  # a state dict and nothing around it
    same(bring(tmp_path / "bare.pt", tmp_path / "ours", **files), peer)


def test_a_hugging_face_folder_in_parts(tmp_path, peer: Peer) -> None:
    state = {f"model.{name}": tensor.contiguous() for name, tensor in peer.state_dict().items()}
    folder = tmp_path / "hub"
    folder.mkdir()
    halves = {"a.safetensors": sorted(state)[:9], "b.safetensors": sorted(state)[9:]}
    for name, keys in halves.items():
        save_file({key: state[key] for key in keys}, folder / name)
    index = {"weight_map": {key: name for name, keys in halves.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    described = {
        "model_type": "openlm",
        "dim": DIM,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "seq_len": CONTEXT,
        "vocab_size": VOCAB,
        "norm_type": "gain_only_lp_layer_norm",
        "apply_qk_norm": True,
        "positional_embedding_type": "rotary",
        "ffn_type": "swiglu_torch",
        "weight_tying": False,
        "post_embed_norm": False,
        "norm_eps": 1e-5,
    }
    (folder / "config.json").write_text(json.dumps(described))
    same(bring(folder, tmp_path / "ours"), peer)
    (folder / "b.safetensors").unlink()
    with pytest.raises(OpenLMError, match=r"names b\.safetensors, which are not there"):
        bring(folder, tmp_path / "other")


def test_what_weights_cannot_tell_must_be_said(tmp_path, files, peer: Peer) -> None:
    torch.save({"epoch": 1, "state_dict": peer.state_dict()}, tmp_path / "epoch_1.pt")
    with pytest.raises(OpenLMError, match="model_norm: not said anywhere") as caught:
        bring(tmp_path / "epoch_1.pt", tmp_path / "ours", config=files["config"])
    assert "--set model_norm=gain_only_lp_layer_norm if it is a model of DCLM's" in str(caught.value)
    assert "positional_embedding_type: not said" in str(caught.value)
    said = {"model_norm": "gain_only_lp_layer_norm", "positional_embedding_type": "rotary"}
    with pytest.raises(OpenLMError, match="seq_len: not said anywhere"):
        bring(tmp_path / "epoch_1.pt", tmp_path / "ours", settings=said)
    # The number of heads follows from the stored frequencies.
    model = bring(tmp_path / "epoch_1.pt", tmp_path / "ours", settings={**said, "seq_len": CONTEXT})
    same(model, peer)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"model_norm": "rms_norm"}, "model_norm is 'rms_norm'; only 'gain_only_lp_layer_norm' or"),
        ({"positional_embedding_type": "head_rotary"}, "positional_embedding_type is 'head_rotary'"),
        ({"ffn_type": "gemma_geglu"}, "ffn_type is 'gemma_geglu'"),
        ({"post_embed_norm": True}, "post_embed_norm is True"),
        ({"moe_freq": 2}, "moe_freq is 2"),
        ({"attn_name": "custom_attn"}, "attn_name is 'custom_attn'"),
        ({"qk_norm": False}, "qk_norm is said to be False, the weights have True"),
        ({"n_layers": 3}, "n_layers is said to be 3, the weights have 2"),
        ({"n_heads": 5}, "hidden_dim 48 cannot be parted into 5 heads"),
        ({"n_heads": 2}, "has 6 frequencies, heads of 24 need 12"),
        ({"weight_tying": True}, "weight_tying is said, but tok_embeddings.weight and output.weight differ"),
    ],
)
def test_settings_of_another_architecture_are_refused(tmp_path, files, peer, setting, message) -> None:
    torch.save({"epoch": 1, "state_dict": peer.state_dict()}, tmp_path / "epoch_1.pt")
    files["config"].write_text(json.dumps({**CONFIG, **setting}))
    with pytest.raises(OpenLMError, match=message):
        bring(tmp_path / "epoch_1.pt", tmp_path / "ours", **files)
    assert not (tmp_path / "ours").exists()


def changed(state: dict[str, Tensor], change: str) -> dict[str, Tensor]:
    name = "layers.1.attention.pos_embed.inv_freq"
    if change == "bias":
        return state | {"layers.0.attention_norm.bias": torch.zeros(DIM)}
    if change == "missing":
        return {k: v for k, v in state.items() if k != "layers.1.ffn_norm.weight"}
    if change == "width":
        return state | {"layers.0.feed_forward.w3.weight": torch.zeros(DIM, 128)}
    if change == "nan":
        return state | {"norm.weight": torch.full((DIM,), math.nan)}
    if change == "positions":
        return state | {name: state[name] * 0.9}
    return {"transformer.wte.weight": torch.zeros(3, 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("bias", r"layers\.0\.attention_norm\.bias: no such parameter in DCLM's architecture"),
        ("missing", r"layers\.1\.ffn_norm\.weight: missing"),
        ("width", r"layers\.0\.feed_forward\.w3\.weight is \(48, 128\), expected \(48, 256\)"),
        ("nan", r"norm\.weight has values that are not finite"),
        ("positions", r"inv_freq is no rotary table"),
        ("peer", r"no tok_embeddings\.weight, so not a model of open_lm; found transformer\.wte"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path, files, peer, change, message) -> None:
    torch.save({"epoch": 1, "state_dict": changed(peer.state_dict(), change)}, tmp_path / "epoch_1.pt")
    with pytest.raises(OpenLMError, match=message):
        bring(tmp_path / "epoch_1.pt", tmp_path / "ours", **files)


def test_stored_frequencies_decide_the_base(tmp_path, files, peer: Peer) -> None:
    for base, rounded in ((100_000, False), (10_000, True)):  # FSDP's mixed precision rounds buffers to bf16
        frequency = 1 / base ** (torch.arange(0, 12, 2).float() / 12)
        frequency = frequency.bfloat16().float() if rounded else frequency
        state = {k: frequency if "inv_freq" in k else v for k, v in peer.state_dict().items()}
        torch.save(state, tmp_path / "bare.pt")
        assert bring(tmp_path / "bare.pt", tmp_path / f"ours-{base}", **files).shape.rope_base == base


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_files_that_would_run_code_are_not_read(tmp_path, files) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"epoch": 1, "state_dict": {}, "args": Evil()}, tmp_path / "epoch_1.pt")
    with pytest.raises(OpenLMError, match="reading that would run code from the file"):
        bring(tmp_path / "epoch_1.pt", tmp_path / "ours", **files)
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"args": Evil()}))
    with pytest.raises(OpenLMError):
        bring(tmp_path / "old.pt", tmp_path / "ours", **files)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "cut.pt").write_bytes((tmp_path / "epoch_1.pt").read_bytes()[:300])
    with pytest.raises(OpenLMError, match=r"cut\.pt"):
        bring(tmp_path / "cut.pt", tmp_path / "ours", **files)


def test_precision_of_the_weights_is_kept_and_folders_are_not_overwritten(
    tmp_path, files, peer: Peer
) -> None:
    state = {k: v.bfloat16() for k, v in peer.state_dict().items()}
    torch.save(state, tmp_path / "bare.pt")
    model = bring(tmp_path / "bare.pt", tmp_path / "ours", **files)
    assert {t.dtype for t in load_file(tmp_path / "ours" / "model.safetensors").values()} == {torch.bfloat16}
    assert model.head.weight.dtype == torch.float32
    with pytest.raises(OpenLMError, match="holds a model already"):
        bring(tmp_path / "bare.pt", tmp_path / "ours", **files)


def test_there_and_back(tmp_path, files, peer: Peer) -> None:
    torch.save({"epoch": 1, "state_dict": peer.state_dict()}, tmp_path / "epoch_1.pt")
    bring(tmp_path / "epoch_1.pt", tmp_path / "ours", **files)
    weights, description = export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    state = torch.load(weights, weights_only=True)["state_dict"]
    assert state.keys() == peer.state_dict().keys()
    other = Peer(seed=9)
    other.load_state_dict(state)  # strictly, buffers included
    for name, tensor in peer.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-6, atol=0)
    again = bring(weights, tmp_path / "again", config=description)  # its JSON says all that must be said
    same(again, peer)


def test_what_open_lm_cannot_express_is_not_exported(tmp_path) -> None:
    scale = scales.load("lm-tiny")  # narrower in its feed-forward than the width rule
    tiny = Decoder(scale.section("model", Shape))
    save_file(
        {k: v for k, v in tiny.state_dict().items() if k != "head.weight"}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps({"scale": scale.to_dict()}))
    shutil.copyfile(data.tokenizer_file("bpe4096"), tmp_path / "tokenizer.json")
    with pytest.raises(OpenLMError, match="ffn_dim is 192, open_lm has 256 built in"):
        export_checkpoint(tmp_path, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_command_line(tmp_path, files, peer: Peer, capsys) -> None:
    torch.save({"epoch": 1, "state_dict": peer.state_dict()}, tmp_path / "epoch_1.pt")
    command = ["import", str(tmp_path / "epoch_1.pt"), "--config", str(files["config"])]
    command += ["--tokenizer", "bpe4096", "--out", str(tmp_path / "ours")]
    assert open_lm.main(command) == 1
    assert "model_norm: not said anywhere" in capsys.readouterr().err
    said = ["--set", "model_norm=gain_only_lp_layer_norm", "--set", "positional_embedding_type=rotary"]
    assert open_lm.main([*command, *said]) == 0
    assert f"{Shape(VOCAB, DIM, LAYERS, HEADS, CONTEXT).parameters:,} parameters" in capsys.readouterr().out
    assert open_lm.main(["export", str(tmp_path / "ours"), "--out", str(tmp_path / "theirs")]) == 0
    assert (tmp_path / "theirs" / "epoch_1.pt").is_file()
    assert open_lm.main([*command[:-1], str(tmp_path / "third"), "--set", "seq_len"]) == 1
    assert "write NAME=VALUE" in capsys.readouterr().err
