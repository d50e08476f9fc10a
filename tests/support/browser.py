"""Headless Chromium for tests of pages: what it logs, requests and draws."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import axe_core_python
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_AXE = Path(axe_core_python.__file__).with_name("axe.min.js")
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required --mute-audio"
)


class Browser:
    """A page in headless Chromium.

    Args:
        driver: the browser.
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self._driver = driver

    def open(self, page: Path | str, width: int, *, scripts: bool = True, dark: bool = False) -> None:
        """Load a file or a URL in a window of a width, with or without JavaScript, in light or dark colours."""
        command = self._driver.execute_cdp_cmd
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        command("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        command("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        command("Emulation.setDeviceMetricsOverride", size)
        self._driver.get("about:blank")
        self.requests()
        self._driver.get_log("browser")
        self._driver.get(page.as_uri() if isinstance(page, Path) else page)
        # The page's own script did not run and will not; those of the tests must.
        command("Emulation.setScriptExecutionDisabled", {"value": False})

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page, and return what it returns; it may use `await`."""
        head = "const done = arguments[arguments.length - 1];"
        body = f"{head} (async () => {{ {script} }})().then(done, (error) => done(`${{error}}`))"
        return self._driver.execute_async_script(body, *arguments)

    def type(self, selector: str, text: object) -> None:
        """Type a text into an element; for the input of a file, its path."""
        self._driver.find_element("css selector", selector).send_keys(str(text))

    def messages(self) -> list[str]:
        """Errors and warnings in the console, since the last call."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def requests(self) -> list[str]:
        """URLs that were requested since the last call, but for data URIs, which are no requests."""
        events = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        sent = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("data:", "about:"))]

    def violations(self) -> list[str]:
        """What axe-core finds wrong: its rule, and the elements."""
        self._driver.execute_cdp_cmd("Runtime.evaluate", {"expression": _AXE.read_text(encoding="utf-8")})
        result = self.run("return await axe.run(document, {resultTypes: ['violations']})")
        return [f"{v['id']}: {[node['html'][:150] for node in v['nodes'][:3]]}" for v in result["violations"]]

    def screenshot(self, path: Path, height: int) -> None:
        """Save the top of the page as a PNG of this height in pixels."""
        width = self.run("return innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        options = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        path.write_bytes(base64.b64decode(self._driver.execute_cdp_cmd("Page.captureScreenshot", options)["data"]))


@contextmanager
def browser(profile: Path, *flags: str) -> Iterator[Browser]:
    """Start Chromium with a fresh profile, and further flags of its command line.

    Where it is absent, the test is skipped, or fails if $MGC_REQUIRE_BROWSER is set.
    """
    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver_path):
        words = "no chromium and chromedriver: `apt-get install chromium chromium-driver`"
        (pytest.fail if os.environ.get("MGC_REQUIRE_BROWSER") else pytest.skip)(words)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS.split(), *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    driver.set_script_timeout(60)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
