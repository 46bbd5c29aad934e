"""The canonical form and the hash: RFC 8785's bytes, whatever the row holds."""

import hashlib

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from backends.ports.audit_chain import LEGACY_CHAIN, ORIGIN, Fields, canonical, chain_hash

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TIMES = st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1e17) | st.integers(0, 2**54).map(float)
SAFE = st.integers(-(2**53) + 1, 2**53 - 1)
FIELDS = st.tuples(TEXT, TIMES, TEXT, TEXT, TEXT, TEXT, TEXT, SAFE, TEXT)
ROW: Fields = ("e1", 1_700_000_000.5, "ada", "user.read", "user/1", "ok", "r1", 200, "192.0.2.7")


@given(TEXT, st.integers(1, 2**53 - 1), FIELDS)
@example("t/0", 1, ('"\\/\b\t\n\f\r\x00\x1f\x7f\u2028é😀', 1e21, "", "", "", "", "", 0, ""))
@example("t/0", 1, ("", 1e16, "", "", "", "", "", 0, ""))
@example("t/0", 1, ("", -0.0, "", "", "", "", "", 0, ""))
@example("t/0", 1, ("", 0.0001, "", "", "", "", "", 0, ""))
@example("t/0", 1, ("", 0.00001, "", "", "", "", "", 0, ""))
@example("t/0", 1, ("", 9999999999999998.0, "", "", "", "", "", 0, ""))
def test_the_direct_form_is_the_librarys(chain: str, sequence: int, fields: Fields) -> None:
    id, at, subject, action, entity, outcome, request_id, status, client = fields
    row = {
        "id": id, "at": at, "subject": subject, "action": action, "entity": entity, "outcome": outcome,
        "request_id": request_id, "status": status, "client": client, "chain": chain, "sequence": sequence,
    }  # fmt: skip
    assert canonical(chain, sequence, fields) == rfc8785.dumps(row)


def test_the_hash_is_what_the_docstring_says_and_anybody_can_compute() -> None:
    text = (
        '{"action":"user.read","at":1700000000.5,"chain":"audit/3","client":"192.0.2.7","entity":"user/1","id":"e1",'
        '"outcome":"ok","request_id":"r1","sequence":1,"status":200,"subject":"ada"}'
    )
    assert chain_hash("audit/3", 1, ORIGIN, ROW) == hashlib.sha256(bytes(32) + text.encode()).digest()


def test_the_first_versions_rows_keep_their_hashes() -> None:
    text = '["e1",1700000000.5,"ada","user.read","user/1","ok","r1",200,"192.0.2.7"]'
    assert chain_hash(LEGACY_CHAIN, 1, ORIGIN, ROW) == hashlib.sha256(bytes(32) + text.encode()).digest()


@pytest.mark.parametrize(
    "fields",
    [
        ("e1", float("inf"), "", "", "", "", "", 0, ""),
        ("e1", float("nan"), "", "", "", "", "", 0, ""),
        ("e1", 1.0, "\ud800", "", "", "", "", 0, ""),
        ("e1", 1.0, "", "", "", "", "", 2**53, ""),
    ],
)
def test_what_json_cannot_carry_is_refused(fields: Fields) -> None:
    with pytest.raises(ValueError):
        canonical("t/0", 1, fields)
