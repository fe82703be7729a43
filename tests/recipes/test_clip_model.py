"""Building, loss, weight decay and gradient checkpointing, against the code of open_clip and its trainer."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

from recipes.clip.model import build, checkpoint_towers, clip_loss, parameter_groups  # noqa: E402

NAME = "winnow-test-model"
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3},
}
RESNET = {**CONFIG, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}}
APART = {**CONFIG, "custom_text": True, "init_logit_bias": -10}


@pytest.fixture(params=[CONFIG, RESNET, APART], ids=["vit", "resnet", "custom-text"])
def config(request, tmp_path):
    (tmp_path / f"{NAME}.json").write_text(json.dumps(request.param))
    open_clip.add_model_config(tmp_path)
    yield request.param
    open_clip.factory._MODEL_CONFIG_PATHS.remove(tmp_path)
    open_clip.factory._MODEL_CONFIGS.pop(NAME)


def test_random_weights_are_those_of_open_clips_factory(config):
    torch.manual_seed(11)
    theirs = open_clip.create_model(NAME).state_dict()
    for spec in (NAME, config):
        ours = build({"open_clip": spec}, seed=11).module.state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    other = build({"open_clip": NAME}, seed=12).module.state_dict()
    different = [name for name in theirs if not torch.equal(other[name], theirs[name])]
    assert any("token_embedding" in name for name in different)


def test_weight_decay_is_that_of_open_clips_trainer(config):
    place = importlib.util.find_spec("open_clip_train")
    if place is None:
        pytest.skip("this open_clip comes without its trainer")
    source = (Path(place.submodule_search_locations[0]) / "main.py").read_text(encoding="utf-8")
    rule = re.search(r"exclude = (lambda n, p: .*)\n", source)
    assert rule, "open_clip's trainer says its rule in other words now; read it and mend this test"
    exclude = eval(rule[1])
    module = build({"open_clip": config}).module
    named = list(module.named_parameters())
    plain, decayed = parameter_groups(module, 0.2)
    assert [id(p) for p in plain["params"]] == [id(p) for n, p in named if exclude(n, p)]
    assert [id(p) for p in decayed["params"]] == [id(p) for n, p in named if not exclude(n, p)]
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0.0, 0.2)
    assert plain["params"] and decayed["params"]


def test_frozen_parameters_are_in_no_group():
    module = build({"open_clip": CONFIG}).module
    module.token_embedding.weight.requires_grad_(False)
    groups = parameter_groups(module, 0.2)
    assert all(p is not module.token_embedding.weight for group in groups for p in group["params"])


@pytest.mark.parametrize("rows, width", [(1, 8), (2, 3), (33, 16)])
def test_loss_and_gradients_are_open_clips(rows, width):
    gradients = []
    values = []
    for loss in (clip_loss, open_clip.ClipLoss()):
        torch.manual_seed(rows)
        inputs = [torch.randn(rows, width, requires_grad=True), torch.randn(rows, width, requires_grad=True)]
        scale = torch.tensor(2.659, requires_grad=True)
        image, text = (torch.nn.functional.normalize(x, dim=-1) for x in inputs)
        value = loss(image, text, scale.exp())
        value.backward()
        values.append(value.detach())
        gradients.append([x.grad for x in (*inputs, scale)])
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-7)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_gradient_checkpointing_changes_no_value(config):
    torch.manual_seed(0)
    images, texts = torch.randn(3, 3, 32, 32), torch.randint(1, 400, (3, 12))
    found = []
    for checkpointed in (False, True):
        module = build({"open_clip": config}, seed=2).module
        if checkpointed:
            assert checkpoint_towers(module)
            if config is not RESNET:  # open_clip's ResNet has it in the text tower only
                assert module.visual.transformer.grad_checkpointing
        loss = clip_loss(
            module.encode_image(images, normalize=True),
            module.encode_text(texts, normalize=True),
            module.logit_scale.exp(),
        )
        loss.backward()
        found.append((loss.item(), {n: p.grad for n, p in module.named_parameters() if p.grad is not None}))
    (plain, first), (again, second) = found
    assert plain == again and first.keys() == second.keys()
    for name, gradient in first.items():
        torch.testing.assert_close(second[name], gradient, rtol=1e-5, atol=1e-7)


def test_the_small_model_has_nothing_to_checkpoint():
    assert checkpoint_towers(build({"small": {}}).module) is False
