"""What hf://owner/dataset[@revision][/path] means: parquet files of a dataset on the Hugging Face hub.

Here is only the name, checked when a job is submitted; what the hub holds is data/hub's to find out.
"""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote

from nanochat.errors import InvalidConfig

SCHEME = "hf://"
MAX_FOLDER_NAME = 100  # protocol.jobs.Name

_REPOSITORY = r"(?P<owner>[A-Za-z0-9][A-Za-z0-9._-]{0,95})/(?P<dataset>[A-Za-z0-9][A-Za-z0-9._-]{0,95})"
# A branch, a tag, a commit; refs/convert/parquet is where the hub keeps its own parquet copy of a dataset.
_REVISION = r"(?P<revision>refs/(?:convert|pr)/[A-Za-z0-9._-]+|[A-Za-z0-9][A-Za-z0-9._-]{0,199})"
_REFERENCE = re.compile(rf"hf://(?:datasets/)?{_REPOSITORY}(?:@{_REVISION})?(?:/(?P<path>.+?))?/?")


@dataclass(frozen=True, kw_only=True)
class HubReference:
    """`path` is a folder or one file of the repository; empty: all of it."""

    owner: str
    dataset: str
    revision: str = "main"
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidConfig."""
        found = _REFERENCE.fullmatch(text.replace("%2F", "/"))
        path = unquote(found["path"] or "") if found else ""
        if found is None or any(part in ("", ".", "..") for part in path.split("/") if path) or not path.isprintable():
            shown = text if len(text) <= 80 else text[:77] + "..."
            raise InvalidConfig(
                f"{shown!r} names no dataset of the hub; write hf://owner/dataset, hf://owner/dataset@revision or "
                "hf://owner/dataset/folder.",
                param="source",
            )
        return cls(owner=found["owner"], dataset=found["dataset"], revision=found["revision"] or "main", path=path)

    @property
    def repository(self) -> str:
        return f"{self.owner}/{self.dataset}"

    @property
    def folder_name(self) -> str:
        """The folder under datasets/ where no other name is given: owner--dataset, with revision and path behind it.

        Raises InvalidConfig when that is too long for a name.
        """
        revision = "" if self.revision == "main" else self.revision
        parts = [self.owner, self.dataset, *re.split("/+", revision), *self.path.split("/")]
        name = "--".join(re.sub(r"[^A-Za-z0-9._-]+", "-", part) for part in parts if part)
        if len(name) > MAX_FOLDER_NAME:
            raise InvalidConfig(
                f"{self} would be a folder with a name of {len(name)} characters, {MAX_FOLDER_NAME} are allowed; "
                "give a name.",
                param="name",
            )
        return name

    def url(self, *parts: str, path: str = "") -> str:
        """Segments below the repository: url("resolve", commit, path="a/b.parquet"). Quoted, without the hub."""
        quoted = [quote(part, safe="") for part in parts]
        return "/".join([*quoted, quote(path)] if path else quoted)

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{SCHEME}{self.repository}{revision}" + (f"/{self.path}" if self.path else "")
