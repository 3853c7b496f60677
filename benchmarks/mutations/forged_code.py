"""Descriptions of objects that would execute code, if they were believed."""

import base64
import json
import marshal
import os
import random
from pathlib import Path
from typing import Any


class Canary:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


class Touch:
    """A class that creates a file when it is instantiated, in whatever way."""

    def __new__(cls, *arguments: object) -> "Touch":
        """Create the file."""
        Path(os.environ["CANARY"]).touch()
        return super().__new__(cls)


def forge_schema(rng: random.Random, data: bytes, canary: Path) -> tuple[bytes, str]:
    """Give a node of skops' schema another loader, class or type; some would execute something."""
    schema = json.loads(data)
    nodes = [node for node in _objects(schema) if "__loader__" in node]
    node = rng.choice(nodes)
    if rng.random() < 0.3:
        # The module is loaded in the child that reads this.
        node |= {"__class__": "Touch", "__module__": "forged_code", "content": None}
        node["__loader__"] = rng.choice(("ObjectNode", "ObjectNode", "TreeNode", "RandomStateNode"))
        return json.dumps(schema).encode(), f"{node['__loader__']} of Touch"
    call = rng.choice((("posix", "system"), ("builtins", "exec"), ("builtins", "eval"),
                       ("pathlib", "Path"), ("numpy.testing", "measure"),
                       ("sklearn", "show_versions"),
                       ("featurepipe.files", "replacing"), ("shutil", "rmtree"), ("os", "nowhere"),
                       ("sklearn.linear_model", "Ridge"), ("numpy", "load")))  # fmt: skip
    loaders = sorted({other["__loader__"] for other in nodes} | {
        "FunctionNode", "TypeNode", "ObjectNode", "MethodNode", "PartialNode", "ReduceNode",
        "OperatorFuncNode", "BytesNode", "SliceNode", "Nowhere", "DefaultDictNode",
    })  # fmt: skip
    if rng.random() < 0.7:
        node["__module__"], node["__class__"] = call
    if rng.random() < 0.7:
        node["__loader__"] = rng.choice(loaders)
    if rng.random() < 0.5:
        touch = f"touch {canary}"
        contents = (touch, f"open({str(canary)!r}, 'w')", {"args": [touch]}, json.dumps(touch))
        node["content"] = rng.choice(contents)
    node |= {"reduce": {"args": node.get("content"), "constructor": node.get("content")}}
    return json.dumps(schema).encode(), f"{node['__loader__']} of {'.'.join(call)}"


def forge_config(rng: random.Random, data: bytes, canary: Path) -> tuple[bytes, str]:
    """Put something that would execute code into the description of a network of Keras."""
    config = json.loads(data)
    nodes = [node for node in _objects(config) if {"class_name", "module"} <= set(node)]
    code = compile(f"(lambda x: open({str(canary)!r}, 'w') and x)", "", "eval").co_consts[0]
    text = base64.b64encode(marshal.dumps(code)).decode()
    function = {
        "class_name": "__lambda__",
        "config": {"code": text, "defaults": None, "closure": None},
    }
    forged: tuple[dict[str, Any], ...] = (
        {"class_name": "Lambda", "module": "keras.layers", "registered_name": None,
         "config": {"name": "x", "function": function}},
        {"class_name": "function", "module": "os", "config": "system", "registered_name": "system"},
        {"class_name": "Path", "module": "pathlib", "config": {"x": str(canary)}},
        {"class_name": "Popen", "module": "subprocess", "config": {"args": ["touch", str(canary)]}},
        {"class_name": "run_module", "module": "runpy", "config": {"mod_name": "this"}},
        {"class_name": "TFSMLayer", "module": "keras.layers", "config": {"filepath": str(canary)}},
        {"class_name": "TorchModuleWrapper", "module": "keras.layers", "config": {"module": text}},
        {"class_name": "Dense", "module": "keras.layers", "config": {"units": 10**9, "name": "x"}},
    )  # fmt: skip
    node, new = rng.choice(nodes), rng.choice(forged)
    kept = {key: node[key] for key in ("name", "inbound_nodes") if key in node}
    node.clear()
    node |= new | kept
    return json.dumps(config).encode(), f"{new['module']}.{new['class_name']}"


def _objects(tree: Any) -> list[dict[str, Any]]:
    """All objects in a tree of JSON values."""
    here = [tree] if isinstance(tree, dict) else []
    inner = tree.values() if isinstance(tree, dict) else tree
    return here + [node for one in inner if isinstance(one, dict | list) for node in _objects(one)]
