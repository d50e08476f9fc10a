"""Published datasets: fetched over HTTP, verified and unpacked; `mgc download`."""
