"""The pages and what they are made of, from `static/`, which Vite builds out of services/gateway/web.

One index.html serves every page; its script looks at the address. Files under assets/ carry a hash in their name.
"""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
PAGES = ("/", "/train", "/models")
_NOT_BUILT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>nanochat</title>
</head>
<body>
<h1>nanochat</h1>
<p>The pages are not built yet. Run <code>make web</code> in the repository and reload.</p>
<p>The API works without them: <a href="/v1/models">/v1/models</a>, <a href="/health/ready">/health/ready</a>.</p>
</body>
</html>
"""


def install_pages(app: FastAPI, static: Path) -> None:
    """`static` may come into being while the process runs."""
    router = APIRouter()
    index = static / "index.html"

    async def page() -> Response:
        if not index.is_file():
            return HTMLResponse(_NOT_BUILT, headers={"cache-control": "no-store"})
        # The page names its assets by hash, so it alone has to be asked for again.
        return FileResponse(index, headers={"cache-control": "no-cache"})

    for address in PAGES:
        router.add_api_route(address, page, methods=["GET", "HEAD"])
    app.include_router(router)
    app.mount("/assets", Assets(directory=static / "assets", check_dir=False))


class Assets(StaticFiles):
    async def check_config(self) -> None:
        """The folder may be missing until the pages are built: nothing is found in it then, and nothing is wrong."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response
