"""Keys must land where Kafka's Java client puts them. Vectors: Kafka's UtilsTest.testMurmur2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.embedded.murmur2 import murmur2, partition_of

VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "expected"), VECTORS.items())
def test_published_vectors(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected


@given(st.binary(), st.integers(1, 1000))
def test_every_key_has_a_partition(key: bytes, partitions: int) -> None:
    assert -(2**31) <= murmur2(key) < 2**31
    assert 0 <= partition_of(key, partitions) < partitions
