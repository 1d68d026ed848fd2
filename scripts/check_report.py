"""Open an HTML report in headless Chromium and check it.

No console error, no network request, nothing wider than the window, no text of a plot on another,
its table can be sorted, and a print is light and as wide as the paper.

    python scripts/check_report.py report.html [--shots folder]

Needs `chromium` (or `google-chrome`) on the path, and uses its DevTools protocol through a pipe.
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
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    "--hide-scrollbars",
]
ALTERNATIVES = (
    "[...document.querySelectorAll('svg[role=img]')].every(svg => svg.getAttribute('aria-label'))"
)
SORTED = """(() => {
  const table = document.querySelector('table.sortable');
  if (!table) return true;
  const column = 2, head = table.tHead.rows[0].cells[column];
  const press = () => head.querySelector('button').click();
  const shown = () => [...table.tBodies[0].rows].map(row => row.cells[column].dataset.value);
  const values = () => shown().filter(value => value !== '').map(Number);
  press();
  const down = values().every((value, i, all) => !i || value <= all[i - 1]);
  press();
  return down && values().every((value, i, all) => !i || value >= all[i - 1]);
})()"""

OVERLAPS = """(() => {
  const found = [];
  for (const svg of document.querySelectorAll('svg[role=img]')) {
    const texts = [...svg.querySelectorAll('text')].map(text => {
      const box = text.getBoundingClientRect(), up = box.height > box.width;
      const x = up ? box.width / 8 : 0, y = up ? 0 : box.height / 8;  // a line is partly empty
      return {text: text.textContent, left: box.left + x, right: box.right - x,
        top: box.top + y, bottom: box.bottom - y};
    });
    texts.forEach((a, i) => texts.slice(i + 1).forEach(b => {
      const besides = a.right <= b.left || b.right <= a.left;
      if (!besides && a.bottom > b.top && b.bottom > a.top) found.push(a.text + ' / ' + b.text);
    }));
  }
  return found;
})()"""
WIDTHS = (400, 800, 1400)
A4 = {"paperWidth": 8.27, "paperHeight": 11.69}  # inches
PAPER = (717, 979)  # pixels inside the margins: the width of A4, the height of US letter
PRINTED = """(() => {
  const light = getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)';
  const tall = [...document.querySelectorAll('figure')]
    .filter(figure => figure.getBoundingClientRect().height > HEIGHT)
    .map(figure => 'taller than a page: ' + figure.querySelector('strong').textContent);
  return [...(light ? [] : ['dark']), ...tall];
})()""".replace("HEIGHT", str(PAPER[1]))


class Page:
    """One tab. Chromium reads messages from file descriptor 3 and writes to 4, zero-terminated."""

    def __init__(self, browser: str, profile: str) -> None:
        (to_read, self.to), (self.back, to_write) = os.pipe(), os.pipe()
        flags = [*FLAGS, f"--user-data-dir={profile}", "about:blank"]
        command = ["bash", "-c", f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}', browser, *flags]
        pipes = (to_read, to_write)
        self.process = subprocess.Popen(command, pass_fds=pipes, stderr=subprocess.DEVNULL)
        self.sent, self.left, self.session = 0, b"", None
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        tab = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=tab, flatten=True)
        self.session = attached["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.sent += 1
        session = {"sessionId": self.session} if self.session else {}
        message = {"id": self.sent, "method": method, "params": params, **session}
        os.write(self.to, json.dumps(message).encode() + b"\0")
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
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")


def inspect(page: Page, width: int, scheme: str, report: Path, shots: Path | None) -> list[str]:
    """What is wrong with the report at one width and in one colour scheme."""
    load(page, width, scheme, report)
    wide = page.value("document.documentElement.scrollWidth")
    wrong = [f"{wide} pixels wide in a window of {width}"] if wide > width else []
    wrong += [f"text on text: {pair}" for pair in page.value(OVERLAPS)]
    if not page.value(SORTED):
        wrong.append("the per-type table does not sort")
    if not page.value(ALTERNATIVES):
        wrong.append("a plot without a text alternative")
    if shots is not None:
        screenshot(page, width, shots / f"{report.stem}-{width}-{scheme}.png")
    return [f"{width} px, {scheme}: {text}" for text in [*wrong, *problems(page.events)]]


def inspect_print(page: Page, report: Path) -> list[str]:
    """What is wrong with a print from a browser in its dark scheme."""
    load(page, PAPER[0], "dark", report, medium="print")
    wrong = list(page.value(PRINTED))
    wide = page.value("document.documentElement.scrollWidth")
    wrong += [f"{wide} pixels wide, on paper of {PAPER[0]}"] if wide > PAPER[0] else []
    return [f"print: {text}" for text in wrong]


def load(page: Page, width: int, scheme: str, report: Path, medium: str = "") -> None:
    """Open the report and wait until it is complete."""
    page.events.clear()
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    page.call("Emulation.setEmulatedMedia", media=medium, features=media)
    page.call("Page.navigate", url=report.resolve().as_uri())
    while page.value("document.readyState") != "complete":
        time.sleep(0.1)
    time.sleep(0.3)


def screenshot(page: Page, width: int, path: Path) -> None:
    """Save an image of the whole page."""
    height = page.value("document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    image = page.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
    path.write_bytes(base64.b64decode(image["data"]))


def problems(events: list[dict[str, Any]]) -> list[str]:
    """Console errors, and requests for anything outside the file."""
    found = [problem(event.get("method", ""), event.get("params", {})) for event in events]
    return [text for text in found if text]


def problem(method: str, params: dict[str, Any]) -> str:
    """What one event reports, if it is a problem."""
    serious = ("error", "warning")
    if method == "Runtime.exceptionThrown":
        return f"console: {json.dumps(params)[:200]}"
    if method == "Runtime.consoleAPICalled" and params["type"] in serious:
        return f"console: {json.dumps(params)[:200]}"
    if method == "Log.entryAdded" and params["entry"]["level"] in serious:
        return f"log: {params['entry']['text'][:200]}"
    if method == "Network.requestWillBeSent":
        url = params["request"]["url"]
        return "" if url.startswith(("file:", "data:")) else f"request: {url[:200]}"
    return ""


def check(page: Page, report: Path, shots: Path | None) -> list[str]:
    """Every width in every colour scheme, and a print."""
    for domain in ("Page", "Runtime", "Log", "Network"):
        page.call(f"{domain}.enable")
    wrong = []
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            wrong += inspect(page, width, scheme, report, shots)
    wrong += inspect_print(page, report)
    if shots is not None:
        load(page, 1400, "dark", report)
        printed = page.call("Page.printToPDF", printBackground=False, **A4)
        (shots / f"{report.stem}.pdf").write_bytes(base64.b64decode(printed["data"]))
    return wrong


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("report", type=Path)
    parser.add_argument("--shots", type=Path, help="a folder for screenshots and a PDF")
    arguments = parser.parse_args()
    if arguments.shots:
        arguments.shots.mkdir(parents=True, exist_ok=True)
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in names if (path := shutil.which(name))), None)
    if browser is None:
        parser.error(f"no browser found; install one of {', '.join(names)}")
    with tempfile.TemporaryDirectory() as profile:
        page = Page(browser, profile)
        wrong = check(page, arguments.report, arguments.shots)
        page.call("Browser.close")
        page.process.wait(timeout=30)
    size = arguments.report.stat().st_size / 1e6
    wrong += [f"{size:.1f} MB, more than 10"] if size > 10 else []
    passed = "no console error, no request, fits 400, 800 and 1400 pixels and paper, sorts"
    print("\n".join(wrong) or f"{arguments.report}: {size:.1f} MB, {passed}")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
