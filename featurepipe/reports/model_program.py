"""The program beside an exported model: it runs the model without featurepipe."""

_IMPORTS = '''\
"""Print what a model of featurepipe answers: python {program} PICTURE ..."""
import json, os, sys
import numpy as np, {package}
from PIL import Image, ImageOps

'''

_ONNX = """\
# It warns of the input "coverage", which may be left out.
onnxruntime.set_default_logger_severity(3)
model = onnxruntime.InferenceSession(os.path.join(os.path.dirname(__file__), MODEL_FILE))
attributes = json.loads(model.get_modelmeta().custom_metadata_map["attributes"])
"""

_OPENVINO = """\
model = openvino.Core().read_model(os.path.join(os.path.dirname(__file__), MODEL_FILE))
attributes = json.loads(model.get_rt_info(["featurepipe", "attributes"]).astype(str))
run = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
"""

_START = """\
for path in sys.argv[1:]:
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    pixels = np.array(opaque.convert("RGB"))[None]
"""

_ANSWER = """\
    answer = dict(zip((o.name for o in model.get_outputs()), model.run(None, {"pixels": pixels})))
"""

_OPENVINO_ANSWER = """\
    answer = run({"pixels": pixels})
"""

_END = """\
    for name, about in attributes.items():
        shares, given = answer[name + "_probabilities"][0], answer[name + "_given"][0]
        said = [f"{c} {p:.3f}" for c, p, g in zip(about["classes"], shares, given) if g]
        print(path, name, *said or ["none" if answer[name + "_known"][0] else "unknown"], sep="\\t")
"""


def program_text(model_file: str, program_file: str, *, is_openvino: bool) -> str:
    """The program that runs a model.

    Parameters
    ----------
    model_file, program_file : str
        Names of the model and of the program, which lie in one folder.
    is_openvino : bool
        Whether the model is one of OpenVINO, not of ONNX Runtime.
    """
    start = _IMPORTS.format(
        program=ascii(program_file)[1:-1].replace('"', "'"),
        package="openvino" if is_openvino else "onnxruntime",
    )
    parts = [_OPENVINO, _OPENVINO_ANSWER] if is_openvino else [_ONNX, _ANSWER]
    opening = parts[0].replace("MODEL_FILE", ascii(model_file))
    return start + opening + _START + parts[1] + _END
