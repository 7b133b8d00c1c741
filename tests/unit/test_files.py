import os
from pathlib import Path

import pytest

from nanochat.errors import InvalidConfig
from nanochat.files import require_writable


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "home")
    assert list((tmp_path / "new" / "home").iterdir()) == []


def test_a_file_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(InvalidConfig, match=r"home cannot be written by user \d+: File exists\. .*name another folder"):
        require_writable(tmp_path / "home")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidConfig, match="Permission denied"):
        require_writable(tmp_path)
    tmp_path.chmod(0o700)
