"""Pages in a real browser, Chromium. Import it only in modules that try pages: without selenium they are skipped."""

import json
import shutil
from pathlib import Path

import pytest

selenium = pytest.importorskip("selenium", reason="selenium is not installed: the page is not tried in a browser")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

__all__ = ["By", "Driver", "Keys", "open_page", "requested_urls", "start"]

Driver = webdriver.Chrome

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")


def start() -> Driver:
    """A browser without a window, to be quit by the caller. Skips the test where there is none."""
    if not CHROMIUM or not CHROMEDRIVER:
        pytest.skip("no chromium with its chromedriver on this machine: the page is not tried in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))


def open_page(driver: Driver, path: Path, *, width: int = 1280, scheme: str = "light") -> None:
    """Open a page from disk in a window of `width` pixels, with empty logs."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 800}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wishes = {
        "prefers-color-scheme": scheme,
        "prefers-reduced-motion": "reduce",
    }  # smooth scrolling would move the elements while they are clicked
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for log in ("browser", "performance"):
        driver.get_log(log)
    driver.get(path.as_uri())


def requested_urls(driver: Driver) -> list[str]:
    """What the browser has asked for since the page was opened, the page itself too."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
