"""The contract of every model store, fake or real."""

from __future__ import annotations

import io
import threading

import pytest

from deploy.clients.stores.protocol import Store

LARGE = bytes(range(256)) * 4096 * 12
"""12 MiB: more than any store accepts in one part."""


class Failing(io.BytesIO):
    """A file whose second read fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 0:
            raise OSError(5, "Input/output error")
        return super().read(size)


class StoreContract:
    """The contract of model stores. Subclasses give the fixture `store`, an empty store."""

    @pytest.fixture
    def store(self) -> Store:
        """Return an empty store."""
        raise NotImplementedError

    def test_a_name_that_was_never_stored_is_missing(self, store: Store) -> None:
        """A missing name gives None, and no folder; it is not an error."""
        assert store.size("models/a/1/manifest.json") is None
        assert store.read("models/a/1/manifest.json", 10) is None
        assert store.stream("models/a/1/manifest.json") is None
        assert store.folders("models") == []

    def test_a_name_keeps_the_bytes_it_was_given(self, store: Store) -> None:
        """Stored content can be read, measured and streamed."""
        assert store.create("models/a/latest.json", b"{}\n")
        assert store.read("models/a/latest.json", 10) == b"{}\n"
        assert store.size("models/a/latest.json") == 3
        assert b"".join(store.stream("models/a/latest.json") or ()) == b"{}\n"

    def test_creating_a_name_twice_changes_nothing(self, store: Store) -> None:
        """The second call returns False, and the bytes of the first stay."""
        assert store.create("a/b", b"first")
        assert not store.create("a/b", b"second")
        assert not store.create("a/b", b"first")
        assert store.read("a/b", 10) == b"first"

    def test_one_of_many_creates_a_name(self, store: Store) -> None:
        """Of many attempts at once, one succeeds, and its bytes stay."""
        answers: dict[bytes, bool] = {}
        start = threading.Barrier(8)

        def create(data: bytes) -> None:
            start.wait()
            answers[data] = store.create("a/b", data)

        threads = [
            threading.Thread(target=create, args=(bytes([number]) * 1000,)) for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [data for data, created in answers.items() if created]
        assert len(answers) == 8
        assert [store.read("a/b", 2000)] == winners

    def test_replacing_gives_a_name_new_bytes(self, store: Store) -> None:
        """An alias can be created and moved."""
        store.replace("a/latest.json", b"a longer first one")
        store.replace("a/latest.json", b"second")
        assert store.read("a/latest.json", 100) == b"second"

    def test_a_reader_sees_one_of_the_versions_of_a_name(self, store: Store) -> None:
        """A reader gets the old bytes or the new ones, never a part or a mixture."""
        versions = [bytes([number]) * 100_000 for number in range(1, 6)]
        store.replace("a/latest.json", versions[0])
        seen: set[bytes | None] = set()
        over = threading.Event()

        def look() -> None:
            while not over.is_set():
                seen.add(store.read("a/latest.json", 1_000_000))

        reader = threading.Thread(target=look)
        reader.start()
        for data in versions * 10:
            store.replace("a/latest.json", data)
        over.set()
        reader.join()
        assert seen
        assert seen <= set(versions)

    def test_reading_stops_soon_after_the_limit(self, store: Store) -> None:
        """One additional byte shows that there is more."""
        store.replace("a/b", b"0123456789")
        assert store.read("a/b", 10) == b"0123456789"
        assert store.read("a/b", 9) == b"0123456789"
        assert store.read("a/b", 4) == b"01234"

    def test_a_large_file_arrives_whole_and_in_pieces(self, store: Store) -> None:
        """The streamed bytes are the uploaded ones."""
        store.upload("blobs/sha256/aa", io.BytesIO(LARGE))
        pieces = list(store.stream("blobs/sha256/aa") or ())
        assert b"".join(pieces) == LARGE
        assert len(pieces) > 3
        assert store.size("blobs/sha256/aa") == len(LARGE)

    def test_an_empty_file_is_a_file(self, store: Store) -> None:
        """An empty file is not a missing name."""
        store.upload("a/b", io.BytesIO(b""))
        assert store.size("a/b") == 0
        assert store.read("a/b", 10) == b""
        assert b"".join(store.stream("a/b") or (b"nothing there",)) == b""

    def test_a_new_upload_replaces_damaged_bytes(self, store: Store) -> None:
        """A new upload replaces damaged bytes."""
        store.replace("a/b", b"damaged, and longer than the file is")
        store.upload("a/b", io.BytesIO(b"whole"))
        assert store.read("a/b", 100) == b"whole"

    @pytest.mark.parametrize("before", [None, b"before"])
    def test_an_upload_that_breaks_leaves_what_was_there(
        self, store: Store, before: bytes | None
    ) -> None:
        """A file that cannot be read completely is not stored, and replaces nothing."""
        if before is not None:
            store.replace("a/b", before)
        with pytest.raises(Exception, match="Input/output error"):
            store.upload("a/b", Failing(LARGE))
        assert store.read("a/b", 100) == before

    def test_folders_are_those_directly_below(self, store: Store) -> None:
        """The names are sorted; neither files nor deeper folders are among them."""
        for name in (
            "models/a/2/manifest.json",
            "models/a/10/manifest.json",
            "models/a/10/deep/er",
            "models/a/latest.json",
            "models/ab/3/x",
        ):
            store.create(name, b"")
        assert store.folders("models/a") == ["10", "2"]
        assert store.folders("models") == ["a", "ab"]
        assert store.folders("models/b") == []
