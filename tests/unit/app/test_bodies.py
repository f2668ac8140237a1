from __future__ import annotations

import pytest

from app.bodies import Room
from app.problems import RequestError


def test_room_is_taken_and_given_back() -> None:
    """Full room takes no byte more; what a share took is free again at its end."""
    room = Room(100)
    with room.share() as other:
        other.take(40)
        with room.share() as share:
            share.take(60)
            with pytest.raises(RequestError, match="Too many bytes"):
                share.take(1)
        assert room.left == 60
    assert room.left == 100
