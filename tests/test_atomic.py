import pytest

from octavo import FormatError
from octavo.atomic import write_atomically


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, error):
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def write(temporary):
        with open(temporary, "wb") as f:
            f.write(b"half of the n")
        raise error

    with pytest.raises(error):
        write_atomically(target, write)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="there is no folder"):
        write_atomically(tmp_path / "none" / "file", lambda temporary: None)
