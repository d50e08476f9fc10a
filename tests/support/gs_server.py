"""A process that speaks Google's JSON API: `gs_server.py PORT BUCKET`.

gcp-storage-emulator answers one connection at a time and pays no heed to conditions; here it has threads, one of which
is at work at a time, and refuses an upload whose `ifGenerationMatch` does not hold, as Google does.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import Any

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.storage import Storage

insert = objects.insert
lock = threading.Lock()


def conditional(request: Any, response: Any, storage: Storage) -> None:
    """`insert`, where the object has the generation that is wanted; 0 is that of none."""
    if wanted := request.query.get("ifGenerationMatch"):
        name = request.query["name"][0] if "name" in request.query else request.data["meta"]["name"]
        try:
            found = storage.get_file_obj(request.params["bucket_name"], name)["generation"]
        except NotFound:
            found = "0"
        if found != wanted[0]:
            response.status = HTTPStatus.PRECONDITION_FAILED
            return
    insert(request, response, storage)


for _, handlers in server.HANDLERS:
    for method, handler in handlers.items():
        if handler is insert:
            handlers[method] = conditional


class Router(server.Router):
    def handle(self, method: str) -> None:
        with lock:
            super().handle(method)


class Handler(server.RequestHandler):
    protocol_version = "HTTP/1.1"


if __name__ == "__main__":
    server.Router = Router
    storage = Storage(use_memory_fs=True)
    create_bucket(sys.argv[2], storage)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), partial(Handler, storage)).serve_forever()
