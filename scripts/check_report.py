"""Open a report in headless Chromium: no console error, no request to the network, nothing wider than the window, sorting works.

    python scripts/check_report.py report.html [--shots folder]

Needs `chromium` (or `google-chrome`) on the path; it speaks the DevTools protocol through a pipe.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe", "--hide-scrollbars",
]  # fmt: skip
SORTED = """(() => {
  const table = document.querySelector('table.sortable');
  if (!table) return true;
  const column = 2, press = () => table.tHead.rows[0].cells[column].querySelector('button').click();
  const values = () => [...table.tBodies[0].rows].map(row => row.cells[column].dataset.value).filter(value => value !== '').map(Number);
  press();
  const down = values().every((value, i, all) => !i || value <= all[i - 1]);
  press();
  return down && values().every((value, i, all) => !i || value >= all[i - 1]);
})()"""


class Page:
    """One tab. Chromium reads messages from its file descriptor 3 and writes to 4, each ended by a zero byte."""

    def __init__(self, browser: str, profile: str) -> None:
        (to_read, self.to), (self.back, to_write) = os.pipe(), os.pipe()
        flags = [*FLAGS, f"--user-data-dir={profile}", "about:blank"]
        command = ["bash", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}', browser, *flags]
        self.process = subprocess.Popen(command, pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL)
        self.sent, self.left, self.events, self.session = 0, b"", list[dict[str, Any]](), None
        tab = next(tab for tab in self.call("Target.getTargets")["targetInfos"] if tab["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=tab["targetId"], flatten=True)["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.sent += 1
        session = {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps({"id": self.sent, "method": method, "params": params, **session}).encode() + b"\0")
        while (reply := self._receive()).get("id") != self.sent:
            self.events.append(reply)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']['message']}")
        return reply["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.left:
            self.left += os.read(self.back, 1 << 20)
        message, self.left = self.left.split(b"\0", 1)
        return json.loads(message)

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")


def look(page: Page, width: int, scheme: str, report: Path, shots: Path | None) -> list[str]:
    """Load the report at one width in one colour scheme; what is wrong with it."""
    page.events.clear()
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.call("Page.navigate", url=report.resolve().as_uri())
    while page.value("document.readyState") != "complete":
        time.sleep(0.1)
    time.sleep(0.3)
    wide = page.value("document.documentElement.scrollWidth")
    wrong = [f"{wide} pixels wide in a window of {width}"] if wide > width else []
    if not page.value(SORTED):
        wrong.append("the per-type table does not sort")
    if page.value("[...document.querySelectorAll('svg[role=img]')].some(svg => !svg.getAttribute('aria-label'))"):
        wrong.append("a picture without a text alternative")
    if shots is not None:
        height = page.value("document.documentElement.scrollHeight")
        image = page.call("Page.captureScreenshot", captureBeyondViewport=True, clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1})
        (shots / f"{report.stem}-{width}-{scheme}.png").write_bytes(base64.b64decode(image["data"]))
    return [f"{width} px, {scheme}: {text}" for text in [*wrong, *complaints(page.events)]]


def complaints(events: list[dict[str, Any]]) -> list[str]:
    """Console errors and requests that left the file."""
    said = []
    for event in events:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown" or (method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning")):
            said.append(f"console: {json.dumps(params)[:200]}")
        if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            said.append(f"log: {params['entry']['text'][:200]}")
        if method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("file:", "data:")):
            said.append(f"request: {params['request']['url'][:200]}")
    return said


def check(page: Page, report: Path, shots: Path | None) -> list[str]:
    """Every width in every colour scheme, and a print."""
    for domain in ("Page", "Runtime", "Log", "Network"):
        page.call(f"{domain}.enable")
    wrong = [text for width in (400, 1400) for scheme in ("light", "dark") for text in look(page, width, scheme, report, shots)]
    if shots is not None:
        printed = page.call("Page.printToPDF", printBackground=False)
        (shots / f"{report.stem}.pdf").write_bytes(base64.b64decode(printed["data"]))
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--shots", type=Path, help="a folder for screenshots and a PDF")
    arguments = parser.parse_args()
    if arguments.shots:
        arguments.shots.mkdir(parents=True, exist_ok=True)
    browser = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    with tempfile.TemporaryDirectory() as profile:
        page = Page(browser, profile)
        wrong = check(page, arguments.report, arguments.shots)
        page.call("Browser.close")
        page.process.wait(timeout=30)
    size = arguments.report.stat().st_size / 1e6
    wrong += [f"{size:.1f} MB, more than 10"] if size > 10 else []
    print("\n".join(wrong) or f"{arguments.report}: {size:.1f} MB, no console error, no request, fits 400 and 1400 pixels, sorts")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
