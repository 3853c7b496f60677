"""A headless Chromium that opens pages of this machine and says what they do."""

import json
import shutil
from pathlib import Path

import pytest

AXE = Path(__file__).parent / "vendored" / "axe.min.js"
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    # Nothing but files and servers of this machine may be reached.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Browser:
    """One window; `open` a page first."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, path, *, width=1400, dark=False, scripts=True, media=""):
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._command("Emulation.setEmulatedMedia", media=media, features=features)
        self._command("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        is_address = str(path).startswith("http://127.0.0.1:")
        self.driver.get(path if is_address else Path(path).absolute().as_uri())

    def run(self, script, *arguments):
        """What a function body returns."""
        return self.driver.execute_script(script, *arguments)

    def messages(self):
        """Everything that was said on the console."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Addresses that were asked for, besides the page itself and what it holds."""
        logged = [json.loads(entry["message"]) for entry in self.driver.get_log("performance")]
        urls = [
            entry["message"]["params"]["request"]["url"]
            for entry in logged
            if entry["message"]["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:") and url != self._address]

    def violations(self):
        """What axe finds, each with its first element."""
        self.run(AXE.read_text())
        found = self.driver.execute_async_script(
            "const done = arguments[0];"
            "axe.run({resultTypes: ['violations']}).then((found) => done(found.violations));"
        )
        return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]

    def texts(self, selector):
        """Texts of the elements that are shown."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter((e) => e.checkVisibility()).map((e) => e.textContent.trim())",
            selector,
        )

    def is_cut(self):
        """Whether the page is wider than the window."""
        return self.run("return document.documentElement.scrollWidth > innerWidth")

    @property
    def _address(self):
        return self.driver.current_url.split("#")[0]

    def _command(self, name, **parameters):
        self.driver.execute_cdp_cmd(name, parameters)


def start_browser():
    """A browser, or a skip with the reason."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in _ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver))
