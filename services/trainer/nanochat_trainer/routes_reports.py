"""/v1/reports: the page about a run, made of its files at the moment it is asked for: of one that trains on as well.

Nothing is stored here: reports/<run>/ is written by jobs of kind report.
"""

import time
from typing import Literal

from fastapi import APIRouter
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from nanochat.report.content import write_content
from nanochat.report.html import content_security_policy, to_html
from nanochat.report.markdown import to_markdown
from nanochat.report.run import read_run
from nanochat_trainer.state import State

router = APIRouter(prefix="/v1/reports", tags=["reports"])


@router.get("/{run}")
def get(run: str, state: State, format: Literal["html", "markdown"] = "html") -> Response:
    """HTML whose policy lets it have its own style sheet and nothing else: it may quote what a model has said."""
    document = write_content(read_run(state.home, run), time.time())
    headers = {"cache-control": "no-store"}
    if format == "markdown":
        return PlainTextResponse(to_markdown(document), media_type="text/markdown; charset=utf-8", headers=headers)
    headers["content-security-policy"] = f"{content_security_policy()}; frame-ancestors 'none'; sandbox"
    return HTMLResponse(to_html(document), headers=headers)
