"""Take the picture of the page of `mgc serve` that the docs show.

    mgc serve RUN
    python benchmarks/serve_picture.py http://127.0.0.1:8000 SONG docs/pictures/serve.png

It needs Chromium and chromedriver, and the packages of the tests (`make` installs these).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from browser import browser

#: Size of the picture in pixels, and the second at which the line stands.
WIDTH, HEIGHT, AT_S = 900, 945, 6


def main() -> int:
    if len(sys.argv) != 4:
        print(__doc__)
        return 2
    url, song, picture = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3])
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as opened:
        opened.open(url, WIDTH)
        opened.type("#file", song)
        while not opened.run("return document.querySelector('#status').textContent").startswith("Done"):
            time.sleep(0.1)
        opened.run("document.getElementById('player').currentTime = arguments[0]", AT_S)
        time.sleep(1)
        opened.screenshot(picture, HEIGHT)
    print(f"{picture}: {picture.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
