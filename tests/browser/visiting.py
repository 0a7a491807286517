"""A visit to a page: everything that tests ask about it, gathered while it is open once.

A page is opened at two widths in two themes; what its scripts said, what it loaded and what can be seen on it goes into
one dictionary.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

WIDTHS = {"phone": 390, "desktop": 1280}
THEMES = ("light", "dark")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--hide-scrollbars",
]

READY = """const done = arguments[0];
const drawn = window.MathJax?.startup?.promise ?? Promise.resolve();
Promise.all([document.fonts.ready, drawn]).then(
  () => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(() => done(true))), 200));"""

LOOK = (Path(__file__).parent / "look.js").read_text(encoding="utf-8")


@dataclass
class Seen:
    """What a visit found: ``look`` what the page shows, the rest what it said and loaded."""

    look: dict
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    transferred: int = 0
    violations: list[str] = field(default_factory=list)

    def __getattr__(self, name: str):
        return self.look[name]


def start(chromium: str, chromedriver: str) -> webdriver.Chrome:
    """A browser without a window that keeps what its pages log and load."""
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(chromedriver))
    browser.set_script_timeout(300)
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
    return browser


class Visitor:
    """Opens pages of a site and remembers what was seen: ``visitor(name, "phone", "dark")``."""

    def __init__(self, driver: webdriver.Chrome, address: str):
        self.driver, self.address = driver, address
        self.seen: dict[tuple[str, str, str], Seen] = {}

    def __call__(self, name: str, width: str, theme: str) -> Seen:
        if (name, width, theme) not in self.seen:
            self.seen[name, width, theme] = self.visit(name, width, theme)
        return self.seen[name, width, theme]

    def open(self, page: str, width: str, theme: str = "light") -> None:
        """Open a page ("ledger.html#claim-free-robust") and wait until its formulas are drawn."""
        phone = width == "phone"
        size = {"width": WIDTHS[width], "height": 844 if phone else 900, "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(f"{self.address}/{page}")
        self.driver.execute_async_script(READY)

    def visit(self, name: str, width: str, theme: str) -> Seen:
        self.open(f"{name}.html", width, theme)
        seen = Seen(self.driver.execute_script(LOOK))
        self.listen(seen)
        if width == "phone":  # at one width only, for it takes seconds
            seen.violations = self.judge(["wcag2a", "wcag2aa"] if theme == "light" else ["wcag2aa"])
        return seen

    def listen(self, seen: Seen) -> None:
        """What the page logged as an error, asked for, did not get, and how many bytes went over the wire."""
        seen.complaints = [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            said = event["params"]
            if event["method"] == "Network.requestWillBeSent" and not said["request"]["url"].startswith("data:"):
                seen.requests.append(said["request"]["url"])
            elif event["method"] == "Network.responseReceived" and said["response"]["status"] >= 400:
                seen.failed.append(f"{said['response']['status']} {said['response']['url']}")
            elif event["method"] == "Network.loadingFailed":
                seen.failed.append(said["errorText"])
            elif event["method"] == "Network.loadingFinished":
                seen.transferred += int(said["encodedDataLength"])

    def judge(self, rules: list[str]) -> list[str]:
        """What axe finds serious or critical in the page's text by the rules of these kinds."""
        options = {"runOnly": rules, "resultTypes": ["violations"]}
        found = Axe().run(self.driver, {"include": [["article"]]}, options)["violations"]
        return [
            f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes'][:3]]} of {len(one['nodes'])}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
