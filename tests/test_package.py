import subprocess
import sys

import pytest

import featurepipe


def test_the_public_names_are_these():
    assert sorted(featurepipe.__all__) == [
        "FeatureStore",
        "Predictor",
        "__version__",
        "audit",
        "check",
        "export",
        "extract",
        "fit",
        "info",
        "next_labels",
        "predict",
        "repeat",
        "report",
        "same",
        "serve",
        "similar",
        "train",
    ]
    for name in featurepipe.__all__:
        assert getattr(featurepipe, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'extrakt'"):
        _ = featurepipe.extrakt


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, featurepipe; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert not loaded & {"numpy", "pandas", "sklearn", "tensorflow", "keras", "h5py", "matplotlib"}


def test_commands_that_read_no_heads_do_not_import_skops():
    """It imports all of scikit-learn, which takes a second."""
    code = "import sys, featurepipe; featurepipe.report, featurepipe.fit; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "featurepipe.workflows.fit" in result.stdout.split()
    assert "skops" not in result.stdout.split()


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "featurepipe", "--version"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == f"featurepipe, version {featurepipe.__version__}\n"
