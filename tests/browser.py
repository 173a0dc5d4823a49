"""A headless browser, driven by the W3C WebDriver protocol without any package."""

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")


def find_browser() -> tuple[str, str] | None:
    """A Chromium and the driver of it, or None where one of them is not installed."""
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """One window of a browser."""

    def __init__(self, width: int, height: int, folder: Path, *options: str):
        browser, driver = find_browser()
        command = [driver, "--port=0", f"--log-path={folder / 'chromedriver.log'}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        options = [*_OPTIONS, *options, f"--user-data-dir={folder / 'profile'}"]
        wanted = {
            "goog:chromeOptions": {"binary": browser, "args": options},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self.session = ""
        try:
            port = (
                next(line for line in self.process.stdout if "successfully on port" in line).rstrip(".\n").split()[-1]
            )
            self.root = f"http://127.0.0.1:{port}/session"
            self.session = "/" + self.ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
            self.resize(width, height)
        except BaseException:
            self.close()
            raise

    def resize(self, width: int, height: int) -> None:
        # A window has a least width, a screen has not.
        size = {"width": width, "height": height}
        self.command("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)

    def prefer(self, dark: bool) -> None:
        """What the page is told about the user's taste."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def command(self, name: str, **parameters) -> None:
        """A command of the DevTools protocol."""
        self.ask("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def ask(self, method: str, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + self.session + path, data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from None

    def open(self, page: Path) -> None:
        self.ask("POST", "/url", {"url": page.resolve().as_uri()})

    def run(self, script: str, *arguments):
        """What a piece of JavaScript returns."""
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def box(self, selector: str) -> list[float]:
        """Left, top, width and height of an element in the window."""
        script = "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
        return self.run(script + "return [box.x, box.y, box.width, box.height]", selector)

    def wait(self, script: str, seconds: float = 10) -> None:
        """Wait until JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({script})"):
            assert time.monotonic() < end, f"still not so after {seconds} s: {script}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until the page has drawn what was asked of it."""
        script = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        self.ask("POST", "/execute/async", {"script": script, "args": []})

    def press(self, *keys: str) -> None:
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})
        self.settle()

    def pointer(self, *steps: tuple) -> None:
        """Move and press a mouse: ("move", x, y), ("down",) and ("up",) in order."""
        kinds = {"move": "pointerMove", "down": "pointerDown", "up": "pointerUp"}
        actions = []
        for kind, *place in steps:
            more = {"x": round(place[0]), "y": round(place[1]), "duration": 20} if place else {"button": 0}
            actions.append({"type": kinds[kind], **more})
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.ask("POST", "/actions", {"actions": [mouse]})
        self.settle()

    def click(self, selector: str) -> None:
        [element] = self.ask("POST", "/element", {"using": "css selector", "value": selector}).values()
        self.ask("POST", f"/element/{element}/click", {})
        self.settle()

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """Errors and warnings on the page's console since the last call."""
        entries = self.ask("POST", "/se/log", {"type": "browser"})
        return [f"{entry['level']}: {entry['message']}" for entry in entries if entry["level"] != "INFO"]

    def close(self) -> None:
        try:
            if self.session:
                self.ask("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait(10)
            self.process.stdout.close()
