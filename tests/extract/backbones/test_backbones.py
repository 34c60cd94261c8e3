"""Backbones with tiny networks, through the same loading code as real ones."""

import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from bench import networks
from haechi.cache.errors import SettingsError
from haechi.cache.schema import fingerprint_of
from haechi.extract.backbones import openclip, slowfast
from haechi.extract.backbones.device import Compute
from haechi.extract.backbones.openclip import OpenClip, resolve_model
from haechi.extract.backbones.pair import Backbones, DeviceMemoryError
from haechi.extract.backbones.slowfast import SlowFast
from haechi.extract.backbones.weights import Weights, WeightsError
from haechi.extract.settings import ExtractSettings
from tests.extract.backbones.direct import video_features

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def tiny_clip(model: str, weights: str) -> OpenClip:
    return OpenClip(model=model, weights=weights, **CPU)


@pytest.fixture
def clip_model(tmp_path: Path) -> str:
    return networks.write_clip_config(tmp_path / "tiny-clip")


@pytest.fixture
def clip_file(clip_model: str, tmp_path: Path) -> Path:
    torch.manual_seed(5)
    module = open_clip.create_model(clip_model, load_weights=False)
    torch.save(module.state_dict(), tmp_path / "clip.pt")
    return tmp_path / "clip.pt"


@pytest.fixture
def tiny_slowfast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(slowfast.MODELS, "slowfast_r50", networks.SmallSlowFast)


def frames(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def test_clip_features_are_encode_image_of_open_clips_own_preprocessing(clip_model: str, clip_file: Path) -> None:
    backbone = tiny_clip(clip_model, str(clip_file))
    module = open_clip.create_model(clip_model, load_weights=False)
    module.load_state_dict(torch.load(clip_file, weights_only=True))
    pixels = frames(3, 32, 32, 3)
    config = networks.CLIP_CONFIG["preprocess_cfg"]
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        expected = module.eval().encode_image((pixels.permute(0, 3, 1, 2) / 255 - mean) / std)
    np.testing.assert_allclose(backbone.forward(pixels)["features"], expected.numpy(), atol=1e-5)
    assert backbone.width == networks.CLIP_WIDTH
    assert backbone.identity["trained"]


def test_random_weights_are_the_same_for_the_same_seed_and_say_that_they_are_untrained(clip_model: str) -> None:
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    first, again, other = (tiny_clip(clip_model, f"random:{seed}") for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.identity == again.identity
    assert first.identity["weights_sha256"] != other.identity["weights_sha256"]
    assert first.identity["trained"] is False
    pixels = frames(2, 32, 32, 3)
    ours, same, differing = (clip.forward(pixels)["features"] for clip in (first, again, other))
    assert (ours == same).all()
    assert (ours != differing).any()


def test_openai_weights_get_the_activation_they_were_trained_with() -> None:
    named = Weights.parse("openai", flag="--clip-weights")
    assert resolve_model("ViT-B-32", named) == "ViT-B-32-quickgelu"
    assert resolve_model("ViT-B-32", Weights.parse("laion2b_s34b_b79k", flag="--clip-weights")) == "ViT-B-32"
    assert resolve_model("ViT-B-32", Weights.parse("random:0", flag="--clip-weights")) == "ViT-B-32"


def test_a_local_file_takes_activation_and_preprocessing_of_its_tag(clip_file: Path) -> None:
    untagged = Weights.parse(str(clip_file), flag="--clip-weights")
    tagged = Weights.parse(f"openai={clip_file}", flag="--clip-weights")
    assert (untagged.file, tagged.file) == (clip_file, clip_file)
    assert resolve_model("ViT-B-32", untagged) == "ViT-B-32"
    assert resolve_model("ViT-B-32", tagged) == "ViT-B-32-quickgelu"
    with pytest.raises(WeightsError, match="cannot be loaded into ViT-B-32-quickgelu"):
        tiny_clip("ViT-B-32", f"openai={clip_file}")  # for another model: the file is loaded, nothing is fetched


@pytest.mark.parametrize(
    ("model", "weights", "kind", "expected"),
    [
        ("ViT-B-23", "openai", SettingsError, "close names: ViT-B-32"),
        ("ViT-B-32", "opanai", WeightsError, "neither a file nor weights of ViT-B-32; it has: openai"),
        ("ViT-B-32", "random", WeightsError, "random:SEED"),
        ("ViT-B-32", "nowhere/x.pt", WeightsError, "no such file"),
        ("local-dir:nowhere", "random:0", SettingsError, "nowhere"),
        ("local-dir:nowhere", "openai", WeightsError, "a local-dir model needs a file or random:SEED"),
    ],
)
def test_wrong_requests(model: str, weights: str, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind) as caught:
        tiny_clip(model, weights)
    assert expected in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code from a weights file ran",)


@pytest.mark.parametrize("content", ["pickle", "text", "other model", "cut"])
def test_files_without_weights_for_this_model(
    clip_model: str, clip_file: Path, tiny_slowfast: None, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    if content == "pickle":
        torch.save({"model_state": Evil()}, clip_file)
    elif content == "text":
        clip_file.write_text("hello")
    elif content == "other model":
        torch.save({"weight": torch.zeros(3)}, clip_file)
    else:
        clip_file.write_bytes(clip_file.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="cannot be loaded into"):
        tiny_clip(clip_model, str(clip_file))
    with pytest.raises(WeightsError, match="cannot be loaded into slowfast_r50"):
        SlowFast(model="slowfast_r50", weights=str(clip_file), **CPU)
    assert "code from a weights file ran" not in capsys.readouterr().out


def test_slowfast_features_and_logits_are_the_networks_own(tiny_slowfast: None, tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = networks.SmallSlowFast()
    norm = module.blocks[0].norm  # as after training: merging them into the convolutions must not change the results
    for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
        tensor.data.uniform_(0.5, 2)
    torch.save({"model_state": module.state_dict()}, tmp_path / "SLOWFAST.pyth")  # the form of pytorchvideo's model zoo
    backbone = SlowFast(model="slowfast_r50", weights=str(tmp_path / "SLOWFAST.pyth"), **CPU)
    windows = frames(2, 32, 256, 256, 3)
    fast = (windows.permute(0, 4, 1, 2, 3) / 255 - 0.45) / 0.225
    slow = fast[:, :, torch.linspace(0, 31, 8).long()]
    with torch.inference_mode():
        logits = module.eval()([slow, fast])
        pooled = module.blocks[0]([slow, fast]).mean((2, 3, 4))
    ours = backbone.forward(windows)
    np.testing.assert_allclose(ours["logits"], logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours["features"], pooled.numpy(), atol=1e-5)
    assert backbone.identity["widths"] == {"features": networks.SLOWFAST_WIDTH, "logits": networks.NUM_LOGITS}


def test_unknown_names_of_slowfast_weights(tiny_slowfast: None) -> None:
    with pytest.raises(WeightsError, match="neither a file nor weights of slowfast_r50; it has: kinetics400"):
        SlowFast(model="slowfast_r50", weights="kinetics", **CPU)


def test_all_missing_weights_are_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a network, the error of each library says which file is missing, from where, and which flag takes it."""

    def no_hub(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(openclip, "hf_hub_download", no_hub)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_hub)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    settings = ExtractSettings(device="cpu")
    with pytest.raises(WeightsError) as caught:
        Backbones(settings, Compute.choose(settings))
    text = str(caught.value)
    for expected in (
        "open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai",
        "--clip-weights openai=PATH",
        "SLOWFAST_8x8_R50.pyth",
        "--slowfast-weights PATH",
    ):
        assert expected in text


def test_batches_of_any_size_give_the_same_features(tiny_settings: ExtractSettings) -> None:
    clip, windows = frames(5, 8, 32, 32, 3), frames(5, 32, 256, 256, 3)
    results = []
    for batch_frames, batch_windows in ((0, 0), (3, 2), (100, 100)):
        settings = ExtractSettings(
            **{**vars(tiny_settings), "batch_frames": batch_frames, "batch_windows": batch_windows}
        )
        results.append(video_features(Backbones(settings, Compute.choose(settings)), clip, windows))
    for features in results[1:]:
        for ours, theirs in zip(features, results[0], strict=True):
            assert list(ours) == list(theirs) == ["clip/features", "slowfast/features", "slowfast/logits"]
            for name, rows in ours.items():
                np.testing.assert_allclose(rows, theirs[name], atol=1e-5)


def test_a_device_too_small_for_one_window_is_an_error(
    tiny_settings: ExtractSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbones = Backbones(tiny_settings, Compute.choose(tiny_settings))

    def full(self: SlowFast, frames: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SlowFast, "forward", full)
    with pytest.raises(DeviceMemoryError, match="memory of cpu is too small for --batch-windows 1"):
        video_features(backbones, frames(4, 8, 32, 32, 3), frames(4, 32, 256, 256, 3))


def run_blocks(module: torch.nn.Module, pathways: list[torch.Tensor]) -> list[torch.Tensor]:
    """What comes out of all blocks before the pooling, which needs larger frames."""
    state = list(pathways)
    for block in module.blocks[:-2]:
        state = block(state)
    return state


def test_batch_norms_of_the_real_network_are_folded() -> None:
    module = slowfast.MODELS["slowfast_r50"](pretrained=False).eval()
    generator = torch.Generator().manual_seed(0)
    for norm in (m for m in module.modules() if isinstance(m, torch.nn.BatchNorm3d)):
        norm.running_mean.normal_(0, 0.1, generator=generator)
        norm.running_var.uniform_(0.5, 1.5, generator=generator)
    pathways = [torch.rand(1, 3, t, 64, 64, generator=generator) for t in (8, 32)]
    with torch.inference_mode():
        expected = run_blocks(module, pathways)
        slowfast._fold_batch_norms(module)
        got = run_blocks(module, pathways)
    assert not any(isinstance(m, torch.nn.BatchNorm3d) for m in module.modules())
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_fingerprint_does_not_depend_on_the_precision(tiny_settings: ExtractSettings) -> None:
    fingerprints = set()
    for precision in ("fp32", "bf16"):
        settings = ExtractSettings(**{**vars(tiny_settings), "precision": precision})
        fingerprints.add(fingerprint_of(Backbones(settings, Compute.choose(settings)).settings))
    assert len(fingerprints) == 1


def test_bfloat16_is_near_float32(clip_model: str) -> None:
    pixels = frames(4, 32, 32, 3)
    exact = tiny_clip(clip_model, "random:0").forward(pixels)["features"]
    near = OpenClip(model=clip_model, weights="random:0", device=torch.device("cpu"), dtype=torch.bfloat16)
    rounded = near.forward(pixels)["features"]
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()


def test_devices_that_do_not_exist() -> None:
    for device in ("cuda:99", "tpu", "meta"):
        with pytest.raises(SettingsError, match=f"--device {device}|device is '{device}', expected auto"):
            Compute.choose(ExtractSettings(device=device))


def test_the_evil_file_is_a_pickle_with_code() -> None:
    """The file above would run code if it were unpickled, so the test above can fail."""
    assert b"print" in pickle.dumps(Evil())


def test_the_last_pooling_of_the_network_takes_bfloat16() -> None:
    module = slowfast.MODELS["slowfast_r50"](pretrained=False)
    pool = module.blocks[-2].eval()
    pathways = [torch.rand(1, 4, frames, 7, 7).bfloat16() for frames in (8, 32)]
    expected = pool([x.float() for x in pathways])
    slowfast._pool_in_float32(module)
    found = pool(pathways)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.004, rtol=0)  # 8 bits of mantissa
