"""What a first read does not wait for."""

import re
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from connectors.sync.columns import MAX_NAME_BYTES, own_name


@given(st.from_regex(re.compile(r"[a-z0-9_]{1,70}"), fullmatch=True))
def test_a_name_is_the_one_that_dlt_gives_it(name: str) -> None:
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    named = own_name(name)
    assert named == NamingConvention(MAX_NAME_BYTES).normalize_identifier(named)
    if not named.startswith(("column_", "src_")):
        assert named == NamingConvention(MAX_NAME_BYTES).normalize_identifier(name)


def test_plain_names_need_no_dlt() -> None:
    code = (
        "import sys; from connectors.sync.columns import own_name\n"
        "names = [own_name(name) for name in ('id', 'user_id', '_sdc_deleted_at', 'line2', 'a' * 63)]\n"
        "sys.exit(len(set(names)) != 5 or 'dlt' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_end_of_a_process_looks_for_no_garbage_among_modules() -> None:
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        "from connectors.sync.interpreter import tune; tune()\n"
        "print(gc.get_freeze_count() > 0)"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.split() == ["False", "True"]
