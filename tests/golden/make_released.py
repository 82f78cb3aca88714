"""Writes `dynamic_city_released.safetensors`: weights under the names and in the shapes of DynamicCity's released ones.

They are those of the case `dynamic_city_1` of `rivals.safetensors`, so what reads a released checkpoint must arrive at
that case's parameters.
"""

import torch
from safetensors import safe_open
from torch import Tensor

from make_fixtures import FOLDER, save
from sep4d_torch import PLANES, SPATIAL, TEMPORAL

CASE = "dynamic_city_1"
LAYER = {
    "norm1": "0.0",
    "qkv": "0.1.qkv",
    "proj": "0.1.proj",
    "norm2": "1.0",
    "fc1": "1.1.fc1",
    "fc2": "1.1.fc2",
}


def released(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as released."""
    own, result = dict(own), {}

    def move(name: str, target: str, kernel: int = 0) -> None:
        """Renames what a layer has; a linear one becomes a convolution of kernel 1 along `kernel` axes."""
        if f"{name}.weight" in own:
            weight = own.pop(f"{name}.weight")
            result[f"{target}.weight"] = weight.reshape(*weight.shape, *[1] * kernel)
        if f"{name}.bias" in own:
            result[f"{target}.bias"] = own.pop(f"{name}.bias")

    def group(name: str, target: str, planes: tuple[str, ...], kernel: int = 0) -> None:
        """Makes one grouped convolution of those of three planes."""
        for part in ("weight", "bias"):
            own[f"{target}.{part}"] = torch.cat([own.pop(f"decoder.blocks.{plane}.{name}.{part}") for plane in planes])
        move(target, f"decoder.conv_block.{target}", kernel)

    def residual(name: str, target: str, kernel: int = 0) -> None:
        move(f"{name}.conv1", f"{target}.0", kernel)
        move(f"{name}.conv2", f"{target}.3", kernel)

    move("encoder.embedding", "encoder.embedding")
    for name, target in (("space", "voxel_encoder"), ("time", "t_encoder")):
        move(f"encoder.{name}.conv0", f"encoder.{target}.conv0")
        residual(f"encoder.{name}.res0", f"encoder.{target}.conv1")
        move(f"encoder.{name}.down", f"encoder.{target}.down.0.0")
        residual(f"encoder.{name}.res1", f"encoder.{target}.down.1")
    for kept in ("xyz", *PLANES):
        projection = f"encoder.projection.{kept}"
        result[f"encoder.tokens.{kept}"] = own.pop(f"{projection}.token")[None, None]
        result[f"encoder.pos_encodings.{kept}"] = own.pop(f"{projection}.positions")[None]
        depth = sum(name.startswith(f"{projection}.layer") and name.endswith(".qkv.weight") for name in own)
        for i in range(depth):
            target = f"encoder.transformers.{kept}.layers.{i}"
            for name, place in LAYER.items():
                move(f"{projection}.layer{i + 1}.{name}", f"{target}.{place}")
        move(f"{projection}.out1", f"encoder.convs.{kept}.0", len(kept))
        move(f"{projection}.out2", f"encoder.convs.{kept}.2", len(kept))
    for i, plane in enumerate(PLANES):
        move(f"encoder.down.{plane}", f"encoder.downsamplers.{i}.down.1.0")
        move(f"distributions.{plane}", f"vae.fc_mu_logvar.{i}")
        move(f"decoder.blocks.{plane}.norm", f"decoder.conv_block.norms.{i}")
        move(f"decoder.up.{plane}.transposed", f"decoder.hex_upsample_block.{i}.upsample.0")
        move(f"decoder.up.{plane}.conv", f"decoder.hex_upsample_block.{i}.upsample.3")
    for planes, side in ((SPATIAL, "h"), (TEMPORAL, "t")):
        group("conv1", f"in_layers_{side}", planes)
        group("conv2", f"out_layers_{side}.1", planes)
        group("skip", f"shortcut_{side}", planes, kernel=2)
    voxels = "decoder.voxel_decoder"
    move("decoder.in", f"{voxels}.conv_in.0", 3)
    residual("decoder.res3", f"{voxels}.conv_layers.0")
    residual("decoder.res1", f"{voxels}.conv_layers.1", 3)
    move("decoder.expand", f"{voxels}.transpose_conv")
    move("decoder.head.hidden", f"{voxels}.final_conv.0", 3)
    move("decoder.head.out", f"{voxels}.final_conv.3", 3)
    assert not own, f"without a name in the release: {list(own)}"
    return result


def main() -> None:
    """Reads the weights and writes the file."""
    prefix = f"{CASE}.param."
    with safe_open(FOLDER / "rivals.safetensors", framework="pt") as file:
        own = {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}
    tensors = released(own)
    assert sum(value.numel() for value in tensors.values()) == sum(value.numel() for value in own.values())
    metadata = {"command": "python tests/golden/make_released.py", "case": CASE}
    save("dynamic_city_released.safetensors", tensors, metadata)


if __name__ == "__main__":
    main()
