"""A page in headless Chromium, spoken to over its debugging pipe; needs nothing but the browser."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars",     "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip


def chromium_path():
    """The browser's path, or None."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class Page:
    """One page: `evaluate` runs an expression in it, `shot` pictures it."""

    def __init__(self, send):
        self._send = send
        target = send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        self.requests = []

    def call(self, method, **parameters):
        """A command of the DevTools protocol."""
        return self._send(method, parameters, self._session)

    def look(self, width, *, dark=False, media="screen", height=900):
        """Make the page that wide, CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def open(self, path):
        """Load a file and wait until it stands."""
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

    def shot(self, path):
        """A picture of the whole page as PNG."""
        width, height = self.evaluate("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        Path(path).write_bytes(base64.b64decode(answer["data"]))


@contextlib.contextmanager
def chromium_page(profile):
    """A page of a fresh browser whose profile lies in a folder; nothing of it can reach a network."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    # Chromium reads commands from descriptor 3 and answers on 4; the shell puts them there.
    for descriptor in (to_read, from_write):
        os.set_inheritable(descriptor, True)
    shell = f'exec 3<&{to_read} 4>&{from_write} && exec "$@"'
    command = ["bash", "-c", shell, "bash", chromium_path(), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, pass_fds=(to_read, from_write), **streams)
    os.close(to_read)
    os.close(from_write)
    commands, answers = os.fdopen(to_write, "wb", buffering=0), os.fdopen(from_read, "rb", buffering=0)
    count, waiting = 0, b""

    def send(method, parameters, session=None):
        nonlocal count, waiting
        count += 1
        message = {"id": count, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        commands.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in waiting:
                part = answers.read(1 << 16)
                if not part:
                    raise AssertionError("the browser ended")
                waiting += part
            line, _, waiting = waiting.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == count:
                assert "error" not in answer, answer
                return answer["result"]

    try:
        yield Page(send)
    finally:
        commands.close()
        answers.close()
        process.terminate()
        process.wait(timeout=20)
