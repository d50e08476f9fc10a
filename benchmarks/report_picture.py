"""Take the picture of a report that the README shows.

    mgc demo
    python benchmarks/report_picture.py data/runs/RUN/report.html docs/pictures/report.png

It needs Chromium and chromedriver, and the packages of the tests (`make` installs these).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))

from browser import browser

#: Size of the picture in pixels.
WIDTH, HEIGHT = 1100, 940


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    report, picture = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as opened:
        opened.open(report.resolve(), WIDTH)
        opened.screenshot(picture, HEIGHT)
    print(f"{picture}: {picture.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
