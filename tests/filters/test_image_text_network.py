"""Models from anywhere: every form of checkpoint gives the same features; what does not fit is named."""

import io
import json
import warnings

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

from safetensors.torch import save_file  # noqa: E402

from filters.image_text import checkpoints, network, open_clip_models  # noqa: E402
from filters.image_text.network import ModelError, load  # noqa: E402
from filters.image_text.pixels import Pixels, UndecodableImage  # noqa: E402

NAME = "winnow-test-vit"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    yield
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder)
    open_clip.factory._MODEL_CONFIGS.pop(NAME)


@pytest.fixture(scope="module")
def model(registered):
    return network.build({"open_clip": NAME}, Pixels.from_open_clip({"size": 32}), seed=4)


def png(size=(40, 30), seed=0, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "png")
    return out.getvalue()


IMAGES = [png(seed=i, size=(30 + 7 * i, 44 - 3 * i)) for i in range(5)]
TEXTS = ["a red circle", "nothing at all", "a photo of a dog, of sorts"]


def same(found, model):
    np.testing.assert_array_equal(found.encode_images(IMAGES), model.encode_images(IMAGES))
    np.testing.assert_array_equal(found.encode_texts(TEXTS), model.encode_texts(TEXTS))
    assert found.identity == model.identity


def weights_of(model):
    return model.module.state_dict()


def checkpoint_of_a_trainer(weights):
    """What open_clip's and DataComp's trainers write: prefixed weights beside the optimizer's state."""
    moments = {
        i: {"step": torch.tensor(3.0), "exp_avg": value.clone(), "exp_avg_sq": value.clone()}
        for i, value in enumerate(weights.values())
    }
    return {
        "epoch": 3,
        "name": "small_scale",
        "state_dict": {f"module.{name}": value for name, value in weights.items()},
        "optimizer": {"state": moments, "param_groups": [{"lr": 5e-4, "params": list(moments)}]},
        "scaler": {"scale": 65536.0, "growth_factor": 2.0},
    }


@pytest.mark.parametrize("form", ["plain.pt", "epoch_3.pt", "compiled.bin", "w.safetensors", "old.pth"])
def test_every_form_of_checkpoint_file_gives_the_same_model(model, tmp_path, form):
    path = tmp_path / form
    if form == "epoch_3.pt":
        torch.save(checkpoint_of_a_trainer(weights_of(model)), path)
    elif form == "compiled.bin":
        torch.save({f"module._orig_mod.{n}": v for n, v in weights_of(model).items()}, path)
    elif form == "old.pth":  # before torch 1.6, no zip
        torch.save({"state_dict": weights_of(model)}, path, _use_new_zipfile_serialization=False)
    elif form == "w.safetensors":
        save_file(weights_of(model), path)
    else:
        torch.save(weights_of(model), path)
    found = load(NAME, path)
    same(found, model)
    assert found.source == str(path) and found.spec == {"open_clip": NAME}


def test_a_configuration_or_its_file_is_a_model_too(model, tmp_path):
    save_file(weights_of(model), tmp_path / "w.safetensors")
    same(load(CONFIG, tmp_path / "w.safetensors"), model)
    (tmp_path / "mine.json").write_text(json.dumps({"model_cfg": CONFIG}))
    same(load(tmp_path / "mine.json", tmp_path / "w.safetensors"), model)
    with pytest.raises(ModelError, match="give a checkpoint file as pretrained"):
        load(CONFIG)


def test_our_directory_round_trip(model, tmp_path):
    path = network.save(model, tmp_path / "m")
    same(load(path), model)
    assert load(path).pixels == model.pixels
    with pytest.raises(ModelError, match="leave pretrained"):
        load(path, "openai")


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_a_folder_as_open_clip_saves_it(tmp_path, weights, prefix):
    torch.manual_seed(3)
    theirs = open_clip.create_model(NAME, force_preprocess_cfg={"resize_mode": "squash", "std": [0.5] * 3})
    from open_clip.push_to_hf_hub import save_config_for_hf

    save_config_for_hf(theirs, tmp_path / "open_clip_config.json", CONFIG)
    if weights.endswith(".bin"):
        torch.save(theirs.state_dict(), tmp_path / weights)
    else:
        save_file(theirs.state_dict(), tmp_path / weights)
    (tmp_path / "config.json").write_text("{}")  # hub folders have one for another library
    ours = load(f"{prefix}{tmp_path}")
    assert (ours.pixels.resize, ours.pixels.size, ours.pixels.std) == ("squash", 32, (0.5, 0.5, 0.5))
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    batch = torch.stack([transform(Image.open(io.BytesIO(data))) for data in IMAGES])
    with torch.no_grad():
        expected = theirs.eval().encode_image(batch, normalize=True).numpy()
        words = theirs.encode_text(open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS), normalize=True)
    np.testing.assert_allclose(ours.encode_images(IMAGES), expected, atol=1e-6)
    np.testing.assert_allclose(ours.encode_texts(TEXTS), words.numpy(), atol=1e-6)


def test_folders_that_are_not_whole_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        load(f"local-dir:{tmp_path / 'none'}")
    with pytest.raises(ModelError, match=r"no open_clip_config\.json"):
        load(f"local-dir:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    with pytest.raises(ModelError, match=r"no weights in it; expected one of open_clip_model\.safetensors"):
        load(tmp_path)
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"open_clip_config.json: not JSON"):
        load(tmp_path)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 4}}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="vision_cfg, text_cfg missing"):
        load(tmp_path)


class TestOfOpenAI:
    """Weights that were trained with quick GELU: used with it whatever the name says, and said aloud."""

    @pytest.fixture
    def files(self, model, tmp_path, monkeypatch):
        plain = tmp_path / "plain.pt"
        torch.save(weights_of(model), plain)
        theirs = tmp_path / "openai.pt"
        extras = {name: torch.tensor(7) for name in checkpoints.OPENAI_EXTRAS}
        torch.save({**{n: v.half() for n, v in weights_of(model).items()}, **extras}, theirs)
        tag = {"openai": {"hf_hub": "nowhere/none/", "quick_gelu": True, "interpolation": "bilinear"}}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, tag)
        monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *a, **k: str(plain))
        return plain, theirs

    def test_by_tag(self, model, files):
        with pytest.warns(
            UserWarning, match='"openai" was trained with quick GELU but winnow-test-vit stands'
        ):
            found = load(NAME, "openai")
        assert found.pixels.interpolation == "bilinear" and found.pixels.size == 32
        assert found.spec["open_clip"]["quick_gelu"] is True
        assert np.abs(found.encode_texts(TEXTS) - model.encode_texts(TEXTS)).max() > 1e-4
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            same(load(NAME, "openai", quick_gelu=True), found)
        with pytest.warns(UserWarning, match="used with exact GELU, as asked"):
            exact = load(NAME, "openai", quick_gelu=False)
        np.testing.assert_array_equal(exact.encode_texts(TEXTS), model.encode_texts(TEXTS))

    def test_by_file(self, model, files):
        with pytest.warns(UserWarning, match="trained with quick GELU"):
            found = load(NAME, files[1])
        assert found.spec["open_clip"]["quick_gelu"] is True
        assert found.module.visual.conv1.weight.dtype == torch.float32
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load(NAME, files[0]).spec == {"open_clip": NAME}  # nobody knows what this one had
            assert load(NAME, files[0], quick_gelu=True).spec["open_clip"]["quick_gelu"] is True

    def test_unknown_tags_name_the_known_ones(self, files):
        with pytest.raises(ModelError, match=r'no weights "opnai" in open_clip \(it has openai\)'):
            load(NAME, "opnai")


def test_weights_of_another_architecture_name_tensors_and_shapes(model, tmp_path):
    save_file(weights_of(model), tmp_path / "w.safetensors")
    wider = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "width": 48}}
    with pytest.raises(ModelError, match=r"visual\.proj is \[32, 16\] in the file, \[48, 16\] in the model"):
        load(wider, tmp_path / "w.safetensors")
    deeper = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "layers": 3}}
    with pytest.raises(
        ModelError, match=r"12 tensors do not fit.*resblocks\.2\.ln_1\.weight \[16\] is not in"
    ):
        load(deeper, tmp_path / "w.safetensors")
    larger = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "image_size": 64}}
    with pytest.raises(ModelError, match=r"visual\.positional_embedding is \[5, 32\]"):
        load(larger, tmp_path / "w.safetensors")


def test_a_text_tower_kept_apart_reads_both_forms(model, tmp_path):
    torch.save(weights_of(model), tmp_path / "w.pt")
    apart = load({**CONFIG, "custom_text": True}, tmp_path / "w.pt")
    assert isinstance(apart.module, open_clip.CustomTextCLIP)
    np.testing.assert_array_equal(apart.encode_texts(TEXTS), model.encode_texts(TEXTS))
    torch.save(weights_of(apart), tmp_path / "apart.pt")
    again = load({**CONFIG, "custom_text": True}, tmp_path / "apart.pt")
    np.testing.assert_array_equal(again.encode_images(IMAGES), model.encode_images(IMAGES))


def test_files_that_hold_no_weights_are_refused_by_name(model, tmp_path):
    with pytest.raises(ModelError, match=r"gone\.pt: no such file of weights"):
        load(NAME, tmp_path / "gone.pt")
    torch.save({"step": 3, "note": "x"}, tmp_path / "none.pt")
    with pytest.raises(ModelError, match="no weights found; it holds step, note"):
        load(NAME, tmp_path / "none.pt")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="holds a list"):
        load(NAME, tmp_path / "list.pt")
    save_file(weights_of(model), tmp_path / "torn.safetensors")
    whole = (tmp_path / "torn.safetensors").read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"torn\.safetensors: not a whole safetensors file"):
        load(NAME, tmp_path / "torn.safetensors")
    torch.save(weights_of(model), tmp_path / "torn.pt")
    whole = (tmp_path / "torn.pt").read_bytes()
    (tmp_path / "torn.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"torn\.pt: not loadable as plain weights"):
        load(NAME, tmp_path / "torn.pt")


def test_a_scripted_archive_is_refused_with_the_mend(tmp_path):
    scripted = torch.jit.script(torch.nn.Linear(2, 2))
    torch.jit.save(scripted, str(tmp_path / "scripted.pt"))
    with pytest.raises(ModelError, match=r'TorchScript.*pretrained="openai".*convert it to safetensors'):
        load(NAME, tmp_path / "scripted.pt")


def test_nan_names_the_tensor(model, tmp_path):
    weights = {name: value.clone() for name, value in weights_of(model).items()}
    weights["visual.proj"][3, 2] = float("nan")
    save_file(weights, tmp_path / "sick.safetensors")
    with pytest.raises(ModelError, match=r"sick\.safetensors: tensor visual\.proj holds NaN"):
        load(NAME, tmp_path / "sick.safetensors")


@pytest.mark.parametrize(
    "spec, message",
    [
        ("ViT-B-33", r'no model "ViT-B-33" \(nearest: "ViT-B-32"\)'),
        ("roberta-ViT-B-32", "its text tower is roberta-base.*local folder"),
        ("ViT-B-16-SigLIP", "its tokenizer is timm/ViT-B-16-SigLIP.*local folder"),
        ({"embed_dim": 4, "text_cfg": {}}, "vision_cfg missing"),
        ({**CONFIG, "vision_cfg": {"hidden": 3}}, "open_clip cannot build.*hidden"),
        ({**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "image_size": [32, 64]}}, "only square"),
    ],
)
def test_models_that_cannot_be_built_say_why(spec, message, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(open_clip, "CustomTextCLIP", lambda **config: torch.nn.Linear(1, 1))
    with pytest.raises(ModelError, match=message):
        network.build({"open_clip": spec})


def test_a_tokenizer_in_the_folder_is_used(model, tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "red": 2, "circle": 3, "<pad>": 4}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "[UNK]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    text = {**CONFIG["text_cfg"], "hf_tokenizer_name": "nowhere/none", "tokenizer_kwargs": {}}
    config = {**CONFIG, "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_file(weights_of(model), tmp_path / "open_clip_model.safetensors")
    found = load(tmp_path)
    assert found.tokenizer(["a red circle"])[0, :4].tolist() == [1, 2, 3, 4]
    again = load(network.save(found, tmp_path / "again"))
    for texts in (["a red circle"], ["a circle", "red"]):
        assert again.encode_texts(texts).shape == (len(texts), 16)
        np.testing.assert_array_equal(again.encode_texts(texts), found.encode_texts(texts))


def test_a_model_on_the_hub(model, tmp_path, monkeypatch):
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5]}})
    )
    save_file(weights_of(model), tmp_path / "open_clip_model.safetensors")

    def local(name, filename="open_clip_model.safetensors", **_):
        assert name == "somebody/some-model"
        return str(tmp_path / filename)

    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", local)
    found = load("hf-hub:somebody/some-model")
    assert found.pixels.mean == (0.5, 0.5, 0.5) and found.source == "hf-hub:somebody/some-model"
    np.testing.assert_array_equal(found.encode_texts(TEXTS), model.encode_texts(TEXTS))
    same(load(network.save(found, tmp_path / "again")), found)
    with pytest.raises(ModelError, match="leave quick_gelu out"):
        load("hf-hub:somebody/some-model", quick_gelu=True)

    def offline(*_, **__):
        raise OSError("no route to the hub")

    monkeypatch.setattr(open_clip.factory, "download_pretrained_from_hf", offline)
    with pytest.raises(ModelError, match=r"some-model.*could not be fetched.*no route"):
        load("hf-hub:somebody/some-model")


def test_a_text_tower_of_transformers_is_built_from_the_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    shape = transformers.RobertaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        vocab_size=49408, max_position_embeddings=20,
    )  # fmt: skip
    shape.save_pretrained(tmp_path / "tiny-roberta")
    text = {"hf_model_name": "tiny-roberta", "context_length": 12, "hf_proj_type": "linear"}
    config = {**CONFIG, "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(ModelError, match=r"without a network: its text tower is tiny-roberta"):
        network.build({"open_clip": config})
    torch.manual_seed(0)
    module = open_clip_models.build(config, tmp_path)
    torch.save(module.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    found = load(tmp_path)
    vectors = found.encode_texts(TEXTS)
    assert vectors.shape == (3, 16) and np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    again = load(network.save(found, tmp_path / "again"))
    np.testing.assert_array_equal(again.encode_texts(TEXTS), vectors)


def test_the_error_of_a_wrong_name_says_which_names_would_fit(tmp_path, model):
    with torch.device("meta"):
        weights = network.build({"open_clip": "ViT-B-16"}).module.state_dict()
    assert open_clip_models.that_fit(weights) == ["ViT-B-16", "ViT-B-16-quickgelu"]
    assert open_clip_models.that_fit({"visual.proj": torch.zeros(2, 2)}) == []
    torch.save(weights_of(model), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"another architecture.* They fit winnow-test-vit$"):
        load({**CONFIG, "embed_dim": 20}, tmp_path / "w.pt")


def test_batches_threads_and_iterators_do_not_change_the_features(model):
    images = [png(seed=i) for i in range(23)]
    whole = model.encode_images(images, batch=8, threads=1)
    np.testing.assert_array_equal(model.encode_images(iter(images), batch=8, threads=3), whole)
    np.testing.assert_array_equal(model.encode_pixels(model.pixels.many(images), batch=8), whole)
    parts = list(model.encode_batches([images[:8], images[8:16], images[16:]]))
    assert [rows for rows, _ in parts] == [images[:8], images[8:16], images[16:]]
    np.testing.assert_array_equal(np.concatenate([features for _, features in parts]), whole)
    assert model.encode_images([]).shape == (0, 0)


def test_no_more_than_the_next_batch_is_read_ahead(model):
    asked = []

    def source():
        for i in range(6):
            asked.append(i)
            yield [png(seed=i)]

    reader = model.encode_batches(source())
    for done in range(6):
        next(reader)
        assert len(asked) <= done + 2
    assert list(reader) == []


def test_an_image_that_does_not_decode_is_named_by_its_row(model):
    images = [png(seed=i) for i in range(9)]
    images[6] = b"GIF89a"
    with pytest.raises(UndecodableImage, match="row 6: cannot decode an image of 6 bytes") as caught:
        model.encode_images(images, batch=4)
    assert caught.value.row == 6

    def broken():
        yield images[:2]
        raise OSError("the tar ends here")

    with pytest.raises(OSError, match="the tar ends here"):
        list(model.encode_batches(broken()))


def test_amp_on_a_cpu_is_fp32_and_says_so(model):
    assert model.arithmetic("amp") == model.arithmetic("fp32") == "fp32"
    np.testing.assert_array_equal(model.encode_images(IMAGES, precision="amp"), model.encode_images(IMAGES))
    with pytest.raises(ValueError, match='precision is "half"'):
        model.encode_texts(TEXTS, precision="half")


def test_identity_names_weights_architecture_and_pixels(model):
    again = network.build({"open_clip": CONFIG}, model.pixels, seed=4)
    assert again.identity == model.identity  # by name or by configuration
    assert len(model.identity) == 16
    others = [
        network.build({"open_clip": CONFIG}, model.pixels, seed=5),
        network.build({"open_clip": {**CONFIG, "quick_gelu": True}}, model.pixels, seed=4),
        network.build({"open_clip": CONFIG}, Pixels(size=32, resize="squash"), seed=4),
    ]
    assert len({model.identity, *(other.identity for other in others)}) == 4


def test_building_leaves_the_random_state_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    network.build({"open_clip": CONFIG}, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_names_of_open_clip_are_known_with_a_slash_too():
    assert open_clip_models.architecture("ViT-B/32")["embed_dim"] == 512
    assert open_clip_models.image_size(open_clip_models.architecture("ViT-L-14-336")) == 336
