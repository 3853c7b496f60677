"""A driver joins a cluster, or says why it cannot."""

import subprocess
import sys

import pytest

from featurepipe.cluster.connecting import connected, require_executor
from featurepipe.errors import ClusterError, UsageError
from hidden_modules import hiding
from pictures import draw_data_set


def test_executors_are_local_and_ray():
    require_executor("local", None)
    require_executor("ray", "head:6379")
    with pytest.raises(UsageError, match=r"no executor 'dask'.*local, ray"):
        require_executor("dask", None)
    with pytest.raises(UsageError, match="--ray-address requires --executor ray"):
        require_executor("local", "head:6379")


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'featurepipe\[ray\]'"), connected():
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"])
def test_an_address_where_nothing_answers_is_named(address):
    pytest.importorskip("ray")
    expected = pytest.raises(ClusterError, match=f"No Ray cluster answers at {address}")
    with expected, connected(address):
        pass


def test_one_machine_needs_no_ray(tmp_path):
    draw_data_set(tmp_path / "images", n_each=2)
    code = (
        "import sys; from featurepipe import extract; "
        "extract(sys.argv[1], backbone='hsv_histogram', workspace=sys.argv[2]); "
        "print('ray' in sys.modules)"
    )
    command = [sys.executable, "-c", hiding("ray") + code]
    result = subprocess.run(
        [*command, tmp_path / "images", tmp_path / "space"], capture_output=True, text=True
    )
    assert result.stdout == "False\n", result.stderr
