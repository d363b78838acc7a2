"""A page in headless Chromium, controlled over its debugging pipe; this needs only the browser."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip


PATIENCE = 240  # seconds for the browser's start, and for each answer


def chromium_path():
    """The browser's path, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium")
    return next((path for name in names if (path := shutil.which(name))), None)


class Page:
    """One page: `evaluate` runs an expression in it, `shot` takes a picture of it."""

    def __init__(self, send):
        self._send = send
        target = send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self.requests = []

    def call(self, method, **parameters):
        """Send a command of the DevTools protocol."""
        return self._send(method, parameters, self._session)

    def look(self, width, *, dark=False, media="screen", height=900):
        """Set the width of the page, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def open(self, path):
        """Load a file and wait until it is complete."""
        self.call("Page.enable")
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        self.evaluate(
            "new Promise(done => { const look = () => location.protocol === 'file:' && "
            "document.readyState === 'complete' ? done(1) : setTimeout(look, 20); look(); })"
        )

    def evaluate(self, expression):
        """The value of a JavaScript expression; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def picture(self):
        """The whole page as PNG."""
        width, height = self.evaluate("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(answer["data"])


class Browser:
    """A Chromium process and its debugging pipe; `send` waits for the answer to a command."""

    def __init__(self, profile):
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4; the shell puts them there.
        shell = f'exec 3<&{to_read} 4>&{from_write} && exec "$@"'
        command = ["bash", "-c", shell, "bash", chromium_path(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(
            command, pass_fds=(to_read, from_write), env={**os.environ, "TMPDIR": str(profile)}, **streams
        )
        os.close(to_read)
        os.close(from_write)
        self._commands, self._answers = to_write, from_read
        self._count, self._waiting = 0, b""

    def send(self, method, parameters, session=None):
        """The result of a command; an AssertionError if it fails or no answer comes in time."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        line = json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        end = time.monotonic() + PATIENCE
        while line:
            line = line[os.write(self._commands, line) :]
        while True:
            answer = json.loads(self._line(method, end))
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _line(self, method, end):
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._answers], [], [], max(end - time.monotonic(), 0))
            assert ready, f"{method}: no answer in {PATIENCE} s"
            part = os.read(self._answers, 1 << 16)
            assert part, f"{method}: the browser ended"
            self._waiting += part
        line, _, self._waiting = self._waiting.partition(b"\0")
        return line

    def close(self):
        """End the process, whatever its state."""
        with contextlib.suppress(AssertionError, OSError):
            self.send("Browser.close", {})
        os.close(self._commands)
        os.close(self._answers)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def chromium_page(profile):
    """A page of a fresh browser that has an empty profile folder and cannot reach a network.

    A machine under load may fail to start it, so it is tried twice.
    """
    browser, page = _started(Path(profile) / "first")
    if page is None:
        browser, page = _started(Path(profile) / "second")
    assert page is not None, "Chromium does not start"
    try:
        yield page
    finally:
        browser.close()


def _started(profile):
    profile.mkdir()
    browser = Browser(profile)
    try:
        return browser, Page(browser.send)
    except (AssertionError, OSError):
        browser.close()
        return browser, None
