"""The rules of exactness for a catalog: it returns what was tracked, and different keys stay different."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, Final

from the_edge_agent.memory.contract.catalog import CatalogBackend
from the_edge_agent.testing.catalog_base import FUTURE, CatalogBase, entry_at, entry_of, id_of, track, track_all
from the_edge_agent.testing.contract import differences, generator, text_of
from the_edge_agent.testing.exactness import HOSTILE_TEXTS, METADATA, VALUES, nested, random_json
from the_edge_agent.testing.slow import slow

SIZES: Final = (None, 0, 1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1)
URIS: Final = (None, "", " ", "s3://bucket/a b?c=%20#d", "file:///tmp/日本/😀", "x" * 5000, "日" * 3000, "😀" * 2000)
HASHES: Final = ("h", "H", "sha256:" + "0" * 64, "x" * 200, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
INLINED: Final[dict[str, Any]] = {
    "0": 0,
    "0.0": 0.0,
    "-0.0": -0.0,
    "1": 1,
    "1.0": 1.0,
    "true": True,
    "false": False,
    "empty text": "",
    "empty list": [],
    "empty object": {},
    "list of null": [None],
    "text null": "null",
    "huge": 10**400,
    "nested": {"a": [{"b": [1, 1.0, True, None, "x"]}]},
    "500 levels": nested(500),
}


class Undecided(tzinfo):
    """A time zone without an offset. Python treats a datetime with it as naive."""

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """Return that it is not known."""
        return None

    def dst(self, moment: datetime | None) -> timedelta | None:
        """Return that it is not known."""
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """Return that it has no name."""
        return None


def _zone(hours: float) -> timezone:
    return timezone(timedelta(hours=hours))


# For each case the argument, and the same time in UTC.
MOMENTS: Final[dict[str, tuple[datetime, datetime]]] = {
    "UTC": (FUTURE, FUTURE),
    "naive": (datetime(2100, 6, 1, 12, 30, 15, 1), datetime(2100, 6, 1, 12, 30, 15, 1, timezone.utc)),
    "east": (FUTURE.astimezone(_zone(14)), FUTURE),
    "west": (FUTURE.astimezone(_zone(-12)), FUTURE),
    "half an hour": (FUTURE.astimezone(_zone(5.5)), FUTURE),
    "seconds": (FUTURE.astimezone(timezone(timedelta(hours=1, seconds=17))), FUTURE),
    "no offset": (FUTURE.replace(tzinfo=Undecided()), FUTURE),
    "no microsecond": (FUTURE.replace(microsecond=0), FUTURE.replace(microsecond=0)),
    "one microsecond": (FUTURE.replace(microsecond=1), FUTURE.replace(microsecond=1)),
    "999,999 microseconds": (FUTURE.replace(microsecond=999_999), FUTURE.replace(microsecond=999_999)),
    "29 February": (datetime(2096, 2, 29, tzinfo=_zone(0)), datetime(2096, 2, 29, tzinfo=timezone.utc)),
    "an hour that some zones leave out": (
        datetime(2100, 3, 28, 2, 30, tzinfo=timezone.utc),
        datetime(2100, 3, 28, 2, 30, tzinfo=timezone.utc),
    ),
    "after 2038": (datetime(2038, 1, 19, 3, 14, 8), datetime(2038, 1, 19, 3, 14, 8, tzinfo=timezone.utc)),
    "last moment": (datetime.max, datetime.max.replace(tzinfo=timezone.utc)),
    "last moment, aware": (datetime.max.replace(tzinfo=_zone(9)), datetime.max.replace(tzinfo=_zone(9))),
}


class CatalogExactnessRules(CatalogBase):
    """Keys, values, sizes and times."""

    def test_every_key_is_its_own(self, catalog: CatalogBackend) -> None:
        for name, key in HOSTILE_TEXTS.items():
            result = track(catalog, key, metadata={"name": name})
            assert (result["created"], result["entry_id"]) == (True, id_of(key)), name
        for name, key in HOSTILE_TEXTS.items():
            entry = entry_at(catalog, key)
            assert (entry["key"], entry["id"], entry["metadata"]) == (key, id_of(key), {"name": name})

    def test_delete_takes_the_exact_key_only(self, catalog: CatalogBackend) -> None:
        texts = [*HOSTILE_TEXTS.values()]
        track_all(catalog, map(entry_of, texts))
        for place, key in enumerate(texts):
            assert catalog.delete_entry(key) is True, ascii(key)
            assert catalog.delete_entry(key) is False, ascii(key)
            assert len(catalog.list_entries(limit=1000)) == len(texts) - place - 1, ascii(key)

    def test_inlined_values_come_back_as_they_were(self, catalog: CatalogBackend) -> None:
        cases = {**INLINED, **{name: value for name, value in VALUES.items() if name != "2 MB of numbers"}}
        for name, value in cases.items():
            track(catalog, name, inlined_value=value)
        came_back = {name: text_of(entry_at(catalog, name)["inlined_value"]) for name in cases}
        assert differences(came_back, {name: text_of(value) for name, value in cases.items()}) == {}

    def test_random_values_come_back_as_they_were(self, catalog: CatalogBackend) -> None:
        rng = generator(self.seed)
        values = {f"k{number:03}": random_json(rng) for number in range(200)}
        track_all(catalog, (entry_of(key, inlined_value=value) for key, value in values.items()))
        came_back = {entry["key"]: text_of(entry["inlined_value"]) for entry in catalog.list_entries(limit=1000)}
        assert differences(came_back, {key: text_of(value) for key, value in values.items()}) == {}, self.seed

    def test_metadata_comes_back_as_it_was(self, catalog: CatalogBackend) -> None:
        for name, metadata in METADATA.items():
            track(catalog, name, metadata=metadata)
        came_back = {name: text_of(entry_at(catalog, name)["metadata"]) for name in METADATA}
        assert differences(came_back, {name: text_of(metadata) for name, metadata in METADATA.items()}) == {}

    def test_metadata_none_and_an_empty_object_stay_different(self, catalog: CatalogBackend) -> None:
        for key, metadata in (("none", None), ("empty", {})):
            track(catalog, key, metadata={"a": 1})
            track(catalog, key, metadata=metadata)
        assert entry_at(catalog, "none")["metadata"] is None
        assert entry_at(catalog, "empty")["metadata"] == {}
        assert [entry["metadata"] for entry in catalog.list_entries()] == [{}, None]

    def test_sizes_go_up_to_2_to_the_63(self, catalog: CatalogBackend) -> None:
        for size in SIZES:
            track(catalog, "k", byte_size=size)
            assert entry_at(catalog, "k")["byte_size"] == size
            assert type(entry_at(catalog, "k")["byte_size"]) is type(size)

    @slow
    def test_a_storage_uri_is_any_text(self, catalog: CatalogBackend) -> None:
        for uri in (*URIS, *HOSTILE_TEXTS.values()):
            track(catalog, "k", storage_uri=uri)
            assert entry_at(catalog, "k")["storage_uri"] == uri

    def test_a_content_hash_has_up_to_200_characters(self, catalog: CatalogBackend) -> None:
        for content_hash in HASHES:
            track(catalog, "k", content_hash=content_hash)
            assert entry_at(catalog, "k")["content_hash"] == content_hash

    def test_an_expiry_is_the_same_moment_in_utc(self, catalog: CatalogBackend) -> None:
        for name, (moment, _) in MOMENTS.items():
            track(catalog, name, expires_at=moment)
        track_all(catalog, (entry_of(f"{name} in a batch", expires_at=moment) for name, (moment, _) in MOMENTS.items()))
        for name, (_, expected) in MOMENTS.items():
            for key in (name, f"{name} in a batch"):
                moment = entry_at(catalog, key)["expires_at"]
                assert (moment, moment.tzinfo) == (expected.astimezone(timezone.utc), timezone.utc), key
