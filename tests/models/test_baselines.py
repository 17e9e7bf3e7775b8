"""The networks of the paper's tables: any size, their published size, training, checkpoints, resume."""

import pytest
import torch
from helpers import CONFIG, refused

from models import MODELS, build_model, loss_of
from models.baselines import BASELINES
from models.inf_net import Maps
from utils.checkpoint import read_checkpoint
from utils.config import TrainingConfig
from utils.training.state import Training

pytest.importorskip("segmentation_models_pytorch", reason="segmentation_models_pytorch is an extra")
FAST = ("unet", "fpn_efficientnet_b1")
OTHERS = [*BASELINES, "inf_net"]
SOME = [name if name in FAST else pytest.param(name, marks=pytest.mark.long) for name in OTHERS]
PARAMETERS = {  # in millions
    "unet": 31.0,  # Ronneberger et al., with batch norm in place of biases
    "segnet": 29.4,  # Badrinarayanan et al.
    "fcn": 32.9,  # torchvision
    # segmentation_models_pytorch
    "linknet_xception": 27.3,
    "fpn_efficientnet_b1": 8.3,
    "pspnet_vgg13": 10.2,
    "unet_resnet34": 24.4,
    "unetplusplus": 26.1,
    "deeplabv3plus_resnet34": 22.4,
    "unet_convnext_tiny": 31.9,
    "inf_net": 30.5,  # published 33.1, of which 2.05 are Res2Net's classifier, which maps do not need
}


def narrow(name):
    return {"base_channels": 4} if name == "unet" else {}


@pytest.mark.parametrize("name", OTHERS)
def test_any_size_is_kept_and_the_published_size(name):
    with torch.device("meta"):
        model = build_model(name)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == PARAMETERS[name]
    model = build_model(name, **narrow(name)).eval()
    with torch.inference_mode():
        assert model(torch.rand(2, 1, 70, 53)).shape == (2, 2, 70, 53)


@pytest.mark.parametrize("name", SOME)
def test_steps_lower_the_loss(name):
    torch.manual_seed(0)
    config = TrainingConfig(**vars(CONFIG) | {"model": name, "lr": 1e-3, "optimizer_type": "adam", "loss": None})
    training = Training(build_model(name, **narrow(name)), config, steps_per_epoch=10)
    masks = torch.zeros(4, 64, 64, dtype=torch.long)
    masks[:, 16:48, 16:40] = 1
    images = masks[:, None] * 0.5 + 0.1 * torch.rand(4, 1, 64, 64)
    training.model.train()
    losses = [training.step(images, masks).item() for _ in range(6)]
    assert min(losses[3:]) < 0.97 * losses[0], losses


@pytest.mark.parametrize("name", SOME)
def test_a_run_its_checkpoint_and_its_resume(name, phantom, call, tmp_path):
    width = ["--base_channels", 4] if name == "unet" else []
    flags = ["--data_root", phantom, "--model", name, "--image_size", 32, "--device", "cpu", "--lr_schedule", "step"]
    flags += ["--epoch"]
    folders = [tmp_path / each for each in ("whole", "half")]
    for folder, epochs in zip(folders, (2, 1), strict=True):
        code, printed, error = call("supervised_train", *flags, epochs, *width, "--save_folder", folder)
        assert code == 0 and f"{name}" in printed, error
    assert call("supervised_train", "--resume", folders[1] / "last.pth", "--epoch", 2)[0] == 0
    whole, half = (read_checkpoint(folder / "last.pth") for folder in folders)
    assert whole["model"] == half["model"] and whole["model"]["name"] == name
    assert all(torch.equal(whole["weights"][key], half["weights"][key]) for key in whole["weights"])
    assert half["run"]["options"]["loss"] == (loss_of(name) or "ce_dice")
    code, printed, error = call("test", "--model", folders[0] / "best.pth", "--images", phantom / "Test-Image",
                                "--out", tmp_path / "out")  # fmt: skip
    assert code == 0, error
    other = ["--pretrained_model", folders[0] / "best.pth", "--model", "cares_unet", "--data_root", phantom]
    refused(call, "supervised_train", *other, names=["cares_unet", name, str(folders[0])], kept=tmp_path)


def test_inf_net_learns_from_all_of_its_maps():
    torch.manual_seed(0)
    model = build_model("inf_net").train()
    outputs = model(torch.rand(2, 1, 64, 64))
    assert isinstance(outputs, Maps) and len(outputs.maps) == 4
    assert {tuple(each.shape) for each in (*outputs.maps, outputs.edge)} == {(2, 1, 64, 64)}
    config = TrainingConfig(model="inf_net")
    assert config.loss_name == "structure" and config.to_dict()["loss"] == "structure"
    with pytest.raises(Exception, match="--loss ce: --model inf_net needs its own, structure"):
        TrainingConfig(model="inf_net", loss="ce").validate()
    with pytest.raises(ValueError, match="not 3 classes"):
        build_model("inf_net", num_classes=3)


def test_without_their_packages_the_error_says_how_to_install_them(phantom, call, tmp_path, monkeypatch):
    for name, package in (("unet_resnet34", "segmentation_models_pytorch"), ("inf_net", "timm")):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        flags = ["--data_root", phantom, "--model", name, "--save_folder", tmp_path / "run"]
        refused(call, "supervised_train", *flags, names=[f"--model {name}", f"pip install {package}"], kept=tmp_path)


def test_weights_for_an_encoder(phantom, call, tmp_path):
    from torchvision.models import resnet34

    torch.manual_seed(1)
    given = resnet34(weights=None).state_dict()  # of three colours, with a classifier
    torch.save(given, tmp_path / "resnet34.pth")
    from utils.training.encoder import load_encoder

    model = build_model("unet_resnet34")
    load_encoder(model, tmp_path / "resnet34.pth")
    assert torch.equal(model.encoder.conv1.weight, given["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(model.encoder.layer4[1].conv2.weight, given["layer4.1.conv2.weight"])
    flags = ["--data_root", phantom, "--encoder_weights", tmp_path / "resnet34.pth", "--image_size", 32, "--epoch", 1]
    flags += ["--save_folder", tmp_path / "run"]
    refused(call, "supervised_train", *flags, names=["cares_unet has no encoder"], kept=tmp_path)
    refused(call, "supervised_train", *flags, "--model", "fcn", names=["lacks layer1.0.conv3"], kept=tmp_path)
    code, printed, error = call("supervised_train", *flags, "--model", "unet_resnet34")
    assert code == 0 and "encoder" in printed, error


def test_another_network_is_refused_by_name_before_its_options(phantom, call, tmp_path):
    flags = ["--data_root", phantom, "--model", "unet", "--base_channels", 2, "--image_size", 32, "--epoch", 1]
    assert call("supervised_train", *flags, "--save_folder", tmp_path / "run", "--device", "cpu")[0] == 0
    best = tmp_path / "run" / "best.pth"
    for name in ("fpn_efficientnet_b1", "inf_net"):
        other = ["--data_root", phantom, "--model", name, "--save_folder", tmp_path / "other"]
        names = [f"--model {name}: the network in", "is unet"]
        refused(call, "supervised_train", *other, "--pretrained_model", best, names=names, kept=tmp_path)
        again = ["--resume", best.with_name("last.pth"), "--model", name, "--epoch", 2]
        refused(call, "supervised_train", *again, names=names, kept=tmp_path)
    weights = ["--resume", best.with_name("last.pth"), "--encoder_weights", tmp_path / "none.pth", "--epoch", 2]
    refused(call, "supervised_train", *weights, names=["--encoder_weights", "is trained already"], kept=tmp_path)
    absent = ["--data_root", phantom, "--model", "fcn", "--encoder_weights", tmp_path / "none.pth"]
    named = ["--encoder_weights", "none.pth: can't be opened"]
    refused(call, "supervised_train", *absent, "--save_folder", tmp_path / "other", names=named, kept=tmp_path)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("unet_convnext_tiny", "convnext_tiny"),
        ("inf_net", "res2net50_26w_4s"),
        ("unet_resnet34", "resnet34"),
        ("linknet_xception", "legacy_xception"),
        ("pspnet_vgg13", "vgg13_bn"),
    ],
)
def test_weights_of_timm_for_an_encoder(name, encoder, tmp_path):
    import timm

    from utils.training.encoder import load_encoder, weights_for

    given = timm.create_model(encoder, pretrained=False).state_dict()
    torch.save(given, tmp_path / "timm.pth")
    model = build_model(name)
    load_encoder(model, tmp_path / "timm.pth")
    found = weights_for(model, tmp_path / "timm.pth")
    assert set(found) == set(model.encoder.state_dict())
    loaded = model.encoder.state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in found.items())
    last = list(found)[-2]
    assert any(torch.equal(found[last], weight) for weight in given.values())


def test_the_list(call):
    code, printed, error = call("models.__main__")
    assert code == 0 and all(name in printed for name in MODELS), error
    assert "54.4 M" in printed and "31.0 M            96.2" in printed


def test_a_recipe_with_a_width_suits_networks_without(phantom, call, tmp_path):
    """Resume, and start semi-supervised training, of a network that takes no --base_channels."""
    name, run = "fpn_efficientnet_b1", tmp_path / "run"
    flags = ["--data_root", phantom, "--recipe", "cpu", "--image_size", 32, "--device", "cpu"]
    code, _, error = call("supervised_train", *flags, "--model", name, "--epoch", 1, "--save_folder", run)
    assert code == 0, error
    options = read_checkpoint(run / "best.pth")["run"]["options"]
    assert options["lr"] == TrainingConfig(model=name).learning_rate == 1.25e-3
    assert call("supervised_train", "--resume", run / "last.pth", "--epoch", 2)[0] == 0
    unlabeled = ["--semi_img_path", phantom / "Test-Image", "--semi_msk_path", phantom / "Test-Mask", "--epoch", 1]
    start = ["--pretrained_model", run / "best.pth", "--save_folder", tmp_path / "semi"]
    code, _, error = call("semi_supervised_train", *flags, *unlabeled, *start)
    assert code == 0, error
    weights = ["--encoder_weights", run / "best.pth", "--save_folder", tmp_path / "other"]
    refused(call, "supervised_train", *flags, *start[:2], *weights, names=["is trained already"], kept=tmp_path)


def test_too_few_values_for_batch_norm_are_told(phantom, call, tmp_path):
    flags = ["--data_root", phantom, "--model", "deeplabv3plus_resnet34", "--image_size", 64, "--batchsize", 1]
    code, _, error = call(
        "supervised_train", *flags, "--epoch", 1, "--save_folder", tmp_path / "run", "--device", "cpu"
    )
    assert code == 2 and "too few values for batch norm; raise --batchsize" in error
