"""Networks of timm -> OpenVINO models; imported by the processes of `conversion_tasks` only."""

from pathlib import Path
from typing import Any

import openvino as ov

from featurepipe.errors import UnknownNameError, UsageError, WeightsError
from featurepipe.features.engines.preset_errors import changed, fetching, not_installed
from featurepipe.features.model_files.sidecars import PretrainedCfg, of_timm
from featurepipe.features.weights import sha256_of

_SAFE = ".safetensors"
_PREFERRED = ("model.safetensors", "open_clip_model.safetensors")
_OFFLINE = (
    "Fetch it on a machine that can reach it and copy the folder of its cache ($HF_HOME), or give "
    "a folder with config.json and model.safetensors: timm:local-dir:PATH"
)


def inspect(name: str) -> dict[str, Any]:
    """Fields of `featurepipe.features.model_files.model_preset.PresetFacts`.

    Parameters
    ----------
    name : str
        As `timm.create_model` takes it.

    Raises
    ------
    UnknownNameError, UsageError
        If timm is not installed or has no such network, or one that does what cannot be done.
    WeightsError
        If there are no weights in safetensors, or they cannot be fetched.
    """
    timm = _import_timm(name)
    model = _create(timm, name)
    cfg = model.pretrained_cfg
    source = f"timm:{name}"
    said = of_timm(
        f"The pretrained_cfg of {source}", PretrainedCfg.model_validate(cfg), "Choose another."
    )
    return {
        "sha256": sha256_of(_weights_file(name, cfg)),
        "library": f"timm {timm.__version__}",
        "licence": cfg.get("license") or "see source",
        "preprocessing": {
            **{key: value for key, value in vars(said).items() if value is not None},
            "source": f"timm {timm.__version__}",
            "prefix_tokens": getattr(model, "num_prefix_tokens", None),
        },
    }


def read(name: str, sha256: str, *, size_px: int, pooling: str) -> ov.Model:
    """A network as an OpenVINO model of float32 images, NCHW.

    Parameters
    ----------
    name : str
    sha256 : str
        What its weights must have.
    size_px : int
    pooling : str
        ``"avg"``: its output is the vector that timm makes of an image. Else what that is made
        of, a map or tokens.

    Raises
    ------
    UsageError, WeightsError
        As `inspect` does; or if it cannot have this size, or the weights are others or not all.
    """
    timm = _import_timm(name)
    import torch

    cfg = _create(timm, name).pretrained_cfg
    path = _weights_file(name, cfg)
    if sha256_of(path) != sha256:
        raise changed(f"timm:{name}")
    model = _load(timm, name, path, _sized(cfg, size_px)).eval()

    is_pooled = pooling == "avg"
    if "cls" in pooling and getattr(model, "has_class_token", None) is False:
        raise UsageError(f"timm:{name} has no class token. Use --pooling mean, or omit it.")

    class Computed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Any) -> Any:
            return self.model(images) if is_pooled else self.model.forward_features(images)

    example = torch.zeros(2, 3, size_px, size_px)
    with torch.no_grad():
        converted = ov.convert_model(
            Computed(), example_input=example, input=[-1, 3, size_px, size_px]
        )
    converted.outputs[0].get_tensor().set_names({"pooled" if is_pooled else "features"})
    return converted


def _import_timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise not_installed(f"timm:{name}", "timm", error) from error
    return timm


def _create(timm: Any, name: str, **options: Any) -> Any:
    bare = name.partition(".")[0]
    if ":" not in name and "/" in name:
        raise UsageError(
            f"timm has no {name!r}. Write timm:hf-hub:{name} for a repository of Hugging Face, "
            f"timm:local-dir:{name} for a folder."
        )
    if ":" not in name and not timm.is_model(bare):
        hint = "timm.list_models() lists all."
        raise UnknownNameError("network of timm", bare, timm.list_models(), hint)
    with fetching(f"timm:{name}", _place(), _OFFLINE):
        return timm.create_model(name, num_classes=0, **options)


def _load(timm: Any, name: str, path: Path, options: dict[str, Any]) -> Any:
    """The network with its weights, all of which the file must have."""
    import torch

    missing: list[str] = []
    load = torch.nn.Module.load_state_dict

    # timm only logs what it does not find, and leaves it random.
    def recording(self: Any, *given: Any, **others: Any) -> Any:
        result = load(self, *given, **others)
        parameters = dict(self.named_parameters())
        missing.extend(key for key in result.missing_keys if key in parameters)
        return result

    torch.nn.Module.load_state_dict = recording  # type: ignore[method-assign]
    try:
        here = {"file": str(path), "source": "", "custom_load": False}
        model = _create(timm, name, pretrained=True, pretrained_cfg_overlay=here, **options)
    finally:
        torch.nn.Module.load_state_dict = load  # type: ignore[method-assign]
    if missing:
        raise WeightsError(
            f"{path.name} of timm:{name} lacks {len(missing)} of the network's weights, such as "
            f"{missing[0]}. Choose another, or save it again with timm."
        )
    return model


def _sized(cfg: dict[str, Any], size_px: int) -> dict[str, Any]:
    """What else `create_model` takes for a size: networks that take one size are built for it."""
    is_own = size_px == cfg["input_size"][-1]
    return {"img_size": size_px} if cfg.get("fixed_input_size") and not is_own else {}


def _weights_file(name: str, cfg: dict[str, Any]) -> Path:
    """The file of the weights, fetched if needed; never one that would be unpickled."""
    if cfg.get("source") == "local-dir":
        folder = Path(cfg["file"])
        found = [folder / preferred for preferred in _PREFERRED if (folder / preferred).is_file()]
        found = found or sorted(folder.glob(f"*{_SAFE}"))
        if not found:
            raise _pickled(name)
        return found[0]
    hub_id, _, revision = (cfg.get("hf_hub_id") or "").partition("@")
    file = cfg.get("hf_hub_filename") or _PREFERRED[0]
    file = {"open_clip_pytorch_model.bin": _PREFERRED[1]}.get(file, file)
    file = file.removesuffix(".bin") + _SAFE if file.endswith(".bin") else file
    if not hub_id and not cfg.get("url"):
        raise UsageError(
            f"timm has no pretrained weights of {name}. Name one that it has, such as "
            f"{name}.TAG: timm.list_pretrained() lists all."
        )
    if not hub_id or not file.endswith(_SAFE):
        raise _pickled(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with fetching(f"timm:{name}", _place(), _OFFLINE):
        try:
            return Path(hf_hub_download(hub_id, file, revision=revision or None))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError as error:
            raise _pickled(name) from error


def _pickled(name: str) -> WeightsError:
    return WeightsError(
        f"timm:{name} has no weights in safetensors, and others are not loaded, since a pickle "
        "can run any code. Choose another, or convert them to safetensors."
    )


def _place() -> str:
    from huggingface_hub.constants import ENDPOINT

    return ENDPOINT
