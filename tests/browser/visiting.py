"""A visit to a page: everything that tests ask about it, gathered while it is open once.

A page is opened once and looked at in two widths and two themes; what its scripts said, what it loaded and what can be
seen on it goes into one dictionary for each.
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

# Marks one element of each style that text has: of its color, size and weight, and what is behind it.
EACH_STYLE = """const known = new Set();
for (const one of document.querySelectorAll("article *")) {
  const has = [...one.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (!has || one.closest("svg") || !one.getClientRects().length) continue;
  const style = getComputedStyle(one), key = [style.color, style.fontSize, style.fontWeight, style.visibility];
  for (let behind = one; behind; behind = behind.parentElement) {
    const {backgroundColor, backgroundImage, opacity} = getComputedStyle(behind);
    key.push(opacity, backgroundImage);
    if (!backgroundColor.endsWith(", 0)")) { key.push(backgroundColor); break; }
  }
  if (!known.has(key.join())) { known.add(key.join()); one.classList.add("tk-style"); }
}"""

# Takes out what is drawn, and code that holds no element so marked: contrasts take as long as a page is big.
LEAVE_STYLES = """for (const one of document.querySelectorAll("svg, mjx-container, .highlight pre")) {
  if (!one.querySelector(".tk-style")) one.replaceChildren();
}"""

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
            self.visit(name)
        return self.seen[name, width, theme]

    def open(self, page: str, width: str, theme: str = "light") -> None:
        """Open a page ("ledger.html#claim-free-robust") and wait until its formulas are drawn."""
        self.driver.get("about:blank")
        self.show(width, theme)
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(f"{self.address}/{page}")
        self.driver.execute_async_script(READY)

    def show(self, width: str, theme: str) -> None:
        """Give the window another width, and the system another theme, as a reader does who turns the phone."""
        phone = width == "phone"
        size = {"width": WIDTHS[width], "height": 844 if phone else 900, "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def visit(self, name: str) -> None:
        """Open a page as a phone does in light, and change width and theme while it is open."""
        self.open(f"{name}.html", "phone")
        for width in WIDTHS:
            for theme in THEMES:
                self.show(width, theme)
                self.driver.execute_async_script(READY)
                seen = self.seen[name, width, theme] = Seen(self.driver.execute_script(LOOK))
                self.listen(seen)
                if width == "phone":  # at one width only, for it takes seconds
                    self.driver.execute_script(EACH_STYLE)
        self.judge(name)

    def judge(self, name: str) -> None:
        """What axe finds in the open page: contrasts in both themes, by one element of each style, and the rest."""
        self.show("phone", "light")
        self.seen[name, "phone", "light"].violations = self.found_by_axe("wcag2a", "article")
        self.driver.execute_script(LEAVE_STYLES)
        for theme in THEMES:
            self.show("phone", theme)
            self.driver.execute_async_script(READY)
            self.seen[name, "phone", theme].violations += self.found_by_axe("wcag2aa", ".tk-style")

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

    def found_by_axe(self, rules: str, place: str) -> list[str]:
        """What is serious or critical there by the rules of a kind."""
        options = {"runOnly": [rules], "resultTypes": ["violations"]}
        found = Axe().run(self.driver, {"include": [[place]]}, options)["violations"]
        return [
            f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes'][:3]]} of {len(one['nodes'])}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
