r"""Measure exported runs: size, time to load and time a picture, by each runtime.

    python benchmarks/exports.py MODEL.onnx … [--page FOLDER …] [--n 40]

Runs each model on its golden images by ONNX Runtime; by OpenVINO if MODEL.xml lies beside; and, for
the page of the same place in the order, in a headless Chromium. Times are processor times of all
threads and processes, since other work may run beside; medians of a picture for the first two, and
the mean of all pictures for the page, which decodes them, too.
"""

import argparse
import functools
import http.server
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from measuring import table_head, table_row
from PIL import Image

from featurepipe.workflows.exports.exported_model import PIXELS, golden_file
from featurepipe.workflows.exports.model_runtimes import open_exported

COLUMNS = ["model", "runtime", "MB", "load s", "ms/picture", "wall ms/picture"]


def main() -> None:
    """Measure, and print a row for each model and runtime."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--page", nargs="*", type=Path, default=[], help="one for each model")
    parser.add_argument("--n", type=int, default=40, help="runs of each model")
    arguments = parser.parse_args()
    print(table_head(COLUMNS), flush=True)
    for number, model in enumerate(arguments.models):
        pictures = golden_pictures(model)
        for path in (model, model.with_suffix(".xml")):
            if path.exists():
                print(table_row([model.stem, *measure(path, pictures, arguments.n)]), flush=True)
        if number < len(arguments.page):
            row = measure_page(arguments.page[number], pictures, arguments.n)
            print(table_row([model.stem, *row]), flush=True)


def golden_pictures(model: Path) -> list[np.ndarray]:
    """The golden images of a model."""
    with np.load(golden_file(model)) as golden:
        names = [name for name in golden.files if name.startswith(f"{PIXELS}_")]
        return [golden[name] for name in names]


def measure(path: Path, pictures: list[np.ndarray], n: int) -> list[str]:
    """A row of a runtime."""
    start = time.process_time()
    model = open_exported(path)
    load_s = time.process_time() - start
    # Buffers for each size are made before.
    for pixels in pictures:
        model.answer(pixels[None])
    cpu, wall = [], []
    for number in range(n):
        pixels = pictures[number % len(pictures)][None]
        starts = time.process_time(), time.perf_counter()
        model.answer(pixels)
        cpu.append(time.process_time() - starts[0])
        wall.append(time.perf_counter() - starts[1])
    suffixes = (".xml", ".bin") if path.suffix == ".xml" else (".onnx",)
    n_bytes = sum(path.with_suffix(suffix).stat().st_size for suffix in suffixes)
    return _row(model.runtime, n_bytes, load_s, statistics.median(cpu), statistics.median(wall))


def measure_page(page: Path, pictures: list[np.ndarray], n: int) -> list[str]:
    """A row of the page; of each picture, decoding and drawing are measured, too."""
    # The tests have a browser.
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from browser import start_browser

    handler = functools.partial(_Quiet, directory=page)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    driver = start_browser()
    processes = psutil.Process(driver.service.process.pid)

    def run(is_done, action) -> tuple[float, float]:
        starts = _processor_time(processes), time.perf_counter()
        action()
        while not is_done(driver.find_element("id", "status").text):
            time.sleep(0.1)
        return _processor_time(processes) - starts[0], time.perf_counter() - starts[1]

    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(n)]
        for number, path in enumerate(paths):
            Image.fromarray(pictures[number % len(pictures)]).save(path)
        give = driver.find_element
        load_s, _ = run(
            "Ready.".__eq__, lambda: driver.get(f"http://127.0.0.1:{server.server_port}/")
        )
        # WebAssembly is compiled a second time while it runs.
        run("1 picture done.".__eq__, lambda: give("id", "files").send_keys(str(paths[0])))
        cpu, wall = run(
            f"{n} pictures done.".__eq__,
            lambda: give("id", "files").send_keys("\n".join(map(str, paths))),
        )
        name = f"Chromium {driver.capabilities['browserVersion'].partition('.')[0]}"
        driver.quit()
    server.shutdown()
    n_bytes = sum(path.stat().st_size for path in page.iterdir())
    return _row(name, n_bytes, load_s, cpu / n, wall / n)


def _processor_time(process: psutil.Process) -> float:
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _row(runtime: str, n_bytes: int, load_s: float, cpu: float, wall: float) -> list[str]:
    return [
        runtime,
        f"{n_bytes / 1e6:.1f}",
        f"{load_s:.1f}",
        f"{1e3 * cpu:.0f}",
        f"{1e3 * wall:.0f}",
    ]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    main()
