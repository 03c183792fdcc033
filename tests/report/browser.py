"""A headless Chromium driven over its DevTools pipe: JSON messages that end with a zero byte, on descriptors 3 and 4.

https://chromedevtools.github.io/devtools-protocol/ and `--remote-debugging-pipe`. No library and no port are needed.
"""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 60


def find_chromium():
    """The path of the browser, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One browser process; each page is a tab of its own, in a profile that is thrown away."""

    def __init__(self, chromium: str, profile: Path):
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command = [chromium, *options, *quiet, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        # The shell puts the two pipes where the browser looks for them.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._input = os.fdopen(self._read, "rb")
        self._number = 0
        self._rest = b""
        self.events = []

    def call(self, method, session=None, /, **parameters):
        """Send one command and return its result; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event, session):
        """Read until ``event`` has come for ``session``."""
        while not any(one.get("method") == event and one.get("sessionId") == session for one in self.events):
            self.events.append(self._receive())

    def _receive(self):
        while b"\0" not in self._rest:
            chunk = self._input.read1(1 << 16)
            assert chunk, "the browser went away"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, url, **looks):
        """Return a new page that shows ``url``."""
        return Page(self, url, **looks)

    def close(self):
        """End the browser."""
        self.call("Browser.close")
        self._process.wait(timeout=TIMEOUT_S)
        os.close(self._write)
        self._input.close()


class Page:
    """One loaded page: as wide as ``width`` CSS pixels, ``light`` or ``dark``, with or without scripts."""

    def __init__(self, browser, url, *, width=1280, height=900, scheme="light", scripts=True, media=""):
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._target = target
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")
        self.resize(width, height)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", media=media, features=features)
        self._call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._call("Page.navigate", url=url)
        browser.wait_for("Page.loadEventFired", self._session)

    def resize(self, width, height=900):
        """Change the width of the page."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)

    def evaluate(self, expression):
        """Return the value of a JavaScript expression; works where the page's own scripts are off."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key, text):
        """Press and release one key."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "")

    def list_events(self, *methods):
        """Return the parameters of the events of these kinds so far."""
        self.evaluate("0")
        mine = [one for one in self._browser.events if one.get("sessionId") == self._session]
        return [one["params"] for one in mine if one.get("method") in methods]

    def list_accessible(self, role):
        """Return (name, description) of everything with this role, as a screen reader is told."""
        nodes = self._call("Accessibility.getFullAXTree")["nodes"]
        found = [node for node in nodes if not node["ignored"] and node["role"]["value"] == role]
        return [(n.get("name", {}).get("value", ""), n.get("description", {}).get("value", "")) for n in found]

    def take_screenshot(self, path):
        """Write a picture of the whole page."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        Path(path).write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method, **parameters):
        return self._browser.call(method, self._session, **parameters)

    def close(self):
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)
