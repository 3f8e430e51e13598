"""Large values in blob storage: exact, stored once, never wrong, never lost; unused blobs are cleaned up."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from databases import Database
from the_edge_agent.memory import LTMError, SQLAlchemyBackend, compute_content_hash, parse_ltm_config
from the_edge_agent.memory.database.blobs import BlobStorage
from the_edge_agent.memory.postgres.backend import PostgresBackend
from the_edge_agent.memory.sqlite.backend import SQLiteBackend

pytestmark = pytest.mark.slow

LARGE: dict[str, Any] = {
    "text": "fox " * 100,
    "order": {"b": "x" * 300, "a": 1, "c": [1.0, 1, -0.0, None, True]},
    "other order": {"a": 1, "b": "x" * 300, "c": [1.0, 1, -0.0, None, True]},
    "emoji": ["日本語 😀 \0" * 50],
}
SMALL: dict[str, Any] = {"null": None, "one": 1, "one float": 1.0, "short": "small"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def options(folder: Path) -> dict[str, Any]:
    return {"uri": str(folder), "inline_threshold": 200, "grace_period": 0}


@pytest.fixture
def backend(database: Database, options: dict[str, Any]) -> Iterator[Any]:
    with database.open(storage=options, catalog="sqlalchemy") as backend:
        yield backend


def blobs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def same(found: Any, value: Any) -> bool:
    return repr(found) == repr(value)  # tells 1 from 1.0, and orders of keys


def test_large_values_are_read_by_every_method_as_they_were_stored(backend: Any, folder: Path) -> None:
    for name, value in {**LARGE, **SMALL}.items():
        assert backend.store(name, value, {"name": name})["created"] is True
    assert len(blobs(folder)) == len(LARGE)
    values = {**LARGE, **SMALL}
    for name, value in values.items():
        assert same(backend.retrieve(name)["value"], value)
        (entry,) = backend.search(metadata_filter={"name": name})["results"]
        assert same(entry["value"], value)
    many = backend.retrieve_many(list(values))["entries"]
    assert all(same(many[name]["value"], value) for name, value in values.items())
    assert all(same(value, values[key]) for key, value, _ in backend.iterate_all())
    assert [entry["key"] for entry in backend.search("日本語")["results"]] == ["emoji"], "they are indexed whole"


def test_batches_and_transactions_place_values_too(backend: Any, folder: Path) -> None:
    backend.store_many([{"key": f"k{n}", "value": [n] * 200} for n in range(20)])
    with backend.transaction() as transaction:
        transaction.store("t", LARGE["text"], ttl=60)
        transaction.store("k0", "small now")
        transaction.store("once", LARGE["order"], if_version=0)
    assert len(blobs(folder)) == 22
    assert backend.retrieve("k7")["value"] == [7] * 200
    assert same(backend.retrieve("once")["value"], LARGE["order"])
    assert backend.retrieve("k0")["value"] == "small now"


def test_equal_values_are_stored_once(backend: Any, folder: Path) -> None:
    for number in range(5):
        backend.store(f"k{number}", LARGE["text"], {"n": number})
    assert len(blobs(folder)) == 1
    backend.delete_many(["k0", "k1", "k2", "k3"])
    assert backend.cleanup_storage() == {"success": True, "deleted_count": 0, "remaining_count": 0}
    assert backend.retrieve("k4")["value"] == LARGE["text"]


def test_the_ledger_knows_where_a_value_is(backend: Any) -> None:
    backend.store("large", LARGE["order"])
    backend.store("small", 1)
    entry = backend.catalog.get_entry("large")
    assert entry["storage_uri"].startswith("sha256:")
    assert entry["content_hash"] == compute_content_hash(LARGE["order"])
    assert backend.catalog.get_entry("small")["storage_uri"] is None
    assert backend.sync_catalog() == {"success": True, "tracked_count": 0, "deleted_count": 0}


def test_a_value_that_was_large_and_is_small_again_is_in_the_database(backend: Any, folder: Path) -> None:
    backend.store("k", LARGE["text"])
    backend.store("k", "small")
    for blob in blobs(folder):
        blob.unlink()
    assert backend.retrieve("k")["value"] == "small"


# --- nothing wrong, nothing lost ---------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["missing", "altered", "cut", "empty"])
def test_a_damaged_value_is_damage_of_its_entry_and_never_a_wrong_value(
    backend: Any, folder: Path, damage: str
) -> None:
    backend.store("k", LARGE["text"], {"n": 1})
    (blob,) = blobs(folder)
    content = blob.read_bytes()
    for key in ("a", "z"):
        backend.store(key, f"fox {key} " * 1000)
    backend.store("k", LARGE["text"], {"n": 1})  # the newest
    if damage == "missing":
        blob.unlink()
    else:
        blob.write_bytes({"altered": content.replace(b"fox", b"cat", 1), "cut": content[:-1], "empty": b""}[damage])
    problem = "altered" if damage in ("altered", "cut") else "missing"
    for result in (backend.retrieve("k"), backend.retrieve_many(["a", "k"])):
        assert (result["success"], result["error_type"], result["damaged"]) == (False, "query_error", ["k"])
        assert problem in result["error"]
        assert "fox" not in result["error"]
    for query in (None, "fox"):
        found = backend.search(query, limit=2)
        assert ([entry["key"] for entry in found["results"]], found["damaged"]) == (["z", "a"], ["k"])
        assert found["results"][0]["value"].startswith("fox z")
    assert backend.search(metadata_filter={"n": 1}) == {"success": True, "results": [], "count": 0, "damaged": ["k"]}
    for items in (backend.iterate_all(), backend.iterate_entries()):
        assert (len(list(items)), items.damaged) == (2, ["k"])
    assert backend.store("k", LARGE["text"])["version"] == 3, "a store of the same value repairs it"
    assert backend.retrieve("k")["value"] == LARGE["text"]


def test_a_storage_that_is_not_there_is_no_damage(backend: Any, folder: Path) -> None:
    backend.store("k", LARGE["text"])
    folder.rename(folder.with_name("elsewhere"))
    for result in (backend.retrieve("k"), backend.search("fox"), backend.search()):
        assert (result["success"], result["error_type"], result.get("damaged")) == (False, "query_error", None)
        assert "cannot read the blob storage" in result["error"]
    with pytest.raises(LTMError, match="cannot read the blob storage"):
        list(backend.iterate_all())


def test_a_folder_in_the_place_of_a_value_is_an_error(backend: Any, folder: Path) -> None:
    backend.store("k", LARGE["text"])
    (blob,) = blobs(folder)
    blob.unlink()
    blob.mkdir()
    assert backend.store("new", LARGE["text"])["error_type"] == "query_error"
    assert backend.retrieve("new")["found"] is False
    assert [*blob.iterdir()] == []
    assert [path for path in blob.parent.iterdir() if path != blob] == []


@pytest.mark.parametrize(
    "pointer", ["../../secret", "sha256:../../secret", "file:///etc/passwd", "sha256:" + "A" * 64, ""]
)
def test_no_pointer_leads_out_of_the_storage(backend: Any, tmp_path: Path, pointer: str) -> None:
    (tmp_path / "secret").write_text('"secret"')
    backend.store("k", LARGE["text"])
    with backend._engine.begin() as connection:
        connection.execute(text("UPDATE ltm_entries SET storage_uri = :pointer"), {"pointer": pointer})
    result = backend.retrieve("k")
    assert result["error_type"] == "query_error"
    assert "secret" not in str(result)


def test_without_the_storage_its_values_are_refused(database: Database, backend: Any) -> None:
    if database.target.in_memory:
        return
    backend.store("large", LARGE["text"])
    backend.store("small", 1)
    native = {"sqlite": "sqlite", "postgresql": "postgres"}.get(database.target.family)
    others = [database.open()]
    if native == "sqlite":
        others.append(SQLiteBackend(str(backend._engine.url.database)))
    if native == "postgres":
        others.append(PostgresBackend(database.url.replace("+psycopg2", "").replace("+psycopg", "")))
    for other in others:
        with other:
            assert other.retrieve("small")["value"] == 1
            result = other.retrieve("large")
            assert (result["error_type"], result["damaged"]) == ("query_error", ["large"])
            assert "its value is in a blob storage; open the memory by SQLAlchemyBackend" in result["error"]
            for query in (None, "fox"):
                assert other.search(query)["damaged"] == ["large"]
            for items in (other.iterate_all(), other.iterate_entries()):
                assert (len(list(items)), items.damaged) == (1, ["large"])


def test_what_the_database_refuses_leaves_at_worst_an_orphan(backend: Any, folder: Path) -> None:
    def fail(*arguments: Any) -> None:
        if arguments[2].startswith(("INSERT", "UPDATE")):
            raise OperationalError("", {}, Exception("the test cuts in"))

    event.listen(backend._engine, "before_cursor_execute", fail)
    assert backend.store("k", LARGE["text"])["success"] is False
    event.remove(backend._engine, "before_cursor_execute", fail)
    assert backend.retrieve("k")["found"] is False
    assert len(blobs(folder)) == 1
    assert backend.cleanup_storage() == {"success": True, "deleted_count": 1, "remaining_count": 0}
    assert blobs(folder) == []


def test_what_the_storage_refuses_is_not_stored(backend: Any, folder: Path) -> None:
    folder.write_text("a file in its place")
    result = backend.store("k", LARGE["text"])
    assert result["error_type"] == "query_error"
    assert backend.retrieve("k")["found"] is False
    assert backend.store("k", "small")["created"] is True


# --- cleanup -----------------------------------------------------------------------------------------


def test_cleanup_goes_in_batches_and_keeps_what_an_entry_points_to(backend: Any, folder: Path) -> None:
    backend.store_many([{"key": f"k{n}", "value": [n] * 200} for n in range(10)])
    backend.store("mortal", LARGE["text"], ttl=3600)
    backend.delete_many([f"k{n}" for n in range(7)])
    assert backend.cleanup_storage(batch_size=4) == {"success": True, "deleted_count": 4, "remaining_count": 3}
    assert backend.cleanup_storage(batch_size=4) == {"success": True, "deleted_count": 3, "remaining_count": 0}
    assert len(blobs(folder)) == 4
    assert [backend.retrieve(f"k{n}")["value"] for n in (7, 8, 9)] == [[7] * 200, [8] * 200, [9] * 200]
    assert backend.retrieve("mortal")["value"] == LARGE["text"]


def test_cleanup_spares_what_is_younger_than_the_grace_period(database: Database, folder: Path) -> None:
    with database.open(storage={"uri": str(folder), "inline_threshold": 200, "grace_period": 3600}) as backend:
        backend.store("k", LARGE["text"])
        backend.store("other", LARGE["emoji"])
        backend.delete_many(["k", "other"])
        assert backend.cleanup_storage() == {"success": True, "deleted_count": 0, "remaining_count": 0}
        old = blobs(folder)[0]
        os.utime(old, (1, 1))
        unfinished = folder / "aa" / ("a" * 64 + ".part-" + "0" * 16)
        unfinished.parent.mkdir(exist_ok=True)
        unfinished.write_text("what a crash left")
        os.utime(unfinished, (1, 1))
        assert backend.cleanup_storage() == {"success": True, "deleted_count": 1, "remaining_count": 0}
        assert not old.exists()
        assert not unfinished.exists()
        assert len(blobs(folder)) == 1


def test_cleanup_removes_nothing_that_the_storage_has_not_named_and_put_there(tmp_path: Path) -> None:
    """What others keep in the folder stays, however it is called and however old it is."""
    folder, digest, part = tmp_path / "blobs", "ab" + "0" * 62, ".part-" + "0" * 16
    others = ["report.part-2.pdf", "ab/x.part-1", f"ab/{digest}.part-1", f"ab/{digest}{part}.pdf", digest]
    others += [
        f"{digest}{part}",
        f"cd/{digest}",
        f"cd/{digest}{part}",
        f"ab/ab/{digest}",
        f"AB/{digest}",
        f"ab/{digest[:-1]}",
    ]
    for name in others:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of somebody else")
        os.utime(path, (1, 1))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ("ef" + "0" * 62)).write_text("of somebody else")
    (folder / "ef").symlink_to(elsewhere)
    (folder / "ab" / ("ab" + "1" * 62)).symlink_to(elsewhere / ("ef" + "0" * 62))
    before = sorted(tmp_path.rglob("*"))
    storage = BlobStorage(str(folder), grace_period=0)
    assert list(storage.older_than(0)) == []
    assert sorted(tmp_path.rglob("*")) == before
    (folder / "ab" / digest).write_text("ours")
    assert list(storage.older_than(0)) == [f"sha256:{digest}"]


@pytest.mark.parametrize("kind", ["fifo", "device", "link", "dangling link", "link of the folder", "too large"])
def test_what_is_no_plain_file_of_the_storage_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tmp_path / "blobs"
    with SQLAlchemyBackend("sqlite://", storage={"uri": str(folder), "inline_threshold": 10}, timeout=5) as backend:
        backend.store("k", LARGE["text"])
        (blob,) = blobs(folder)
        if kind == "link of the folder":
            blob.parent.rename(tmp_path / "elsewhere")
            blob.parent.symlink_to(tmp_path / "elsewhere")
        elif kind == "too large":
            monkeypatch.setattr("the_edge_agent.memory.database.blobs.LARGEST_BLOB", 100)
        else:
            content = tmp_path / "content"
            blob.rename(content)
            if kind == "fifo":
                os.mkfifo(blob)
            else:
                blob.symlink_to({"device": "/dev/zero", "link": str(content), "dangling link": "nowhere"}[kind])
        for result in (backend.retrieve("k"), backend.retrieve_many(["k"])):
            assert result["error_type"] == "query_error"
            assert "blob storage" in result["error"]
        refused = backend.store("other", LARGE["text"])
        assert refused["error_type"] == ("validation_error" if kind == "too large" else "query_error")


def test_writers_and_cleanup_at_once_lose_no_value(backend: Any) -> None:
    values = [[number] * 200 for number in range(3)]
    done = threading.Event()

    def clean() -> None:
        while not done.is_set():
            assert backend.cleanup_storage()["success"] is True

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for number in range(60):  # the same few values come and go, so that blobs are removed and written again
            assert backend.store("k", values[number % 3])["success"] is True
            assert backend.retrieve("k")["value"] == values[number % 3]
            if number % 2:
                assert backend.delete("k")["deleted"] is True
    finally:
        done.set()
        cleaner.join()


# --- configuration -----------------------------------------------------------------------------------


def test_a_storage_in_memory() -> None:
    fsspec.filesystem("memory").store.clear()
    with parse_ltm_config(
        {"ltm": {"url": "sqlite://", "storage": {"uri": "memory://blobs", "inline_threshold": 10}}}
    ) as backend:
        backend.store("k", "x" * 50)
        assert backend.retrieve("k")["value"] == "x" * 50
        assert len(fsspec.filesystem("memory").store) == 1


def test_a_value_larger_than_the_servers_packet_fits_into_a_storage(tmp_path: Path, database: Database) -> None:
    with database.open(storage={"uri": str(tmp_path / "b")}) as backend:
        packet = backend._database.start().schema.packet
        value = "x" * min(packet or 20_000_000, 20_000_000)
        assert backend.store("k", value)["created"] is True
        assert backend.retrieve("k")["value"] == value


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (5, "storage must be a mapping"),
        ({}, "storage must be a mapping"),
        ({"uri": ""}, "storage.uri"),
        ({"uri": 5}, "storage.uri"),
        ({"uri": "nosuchscheme://x"}, "storage.uri"),
        ({"uri": "x", "inline_treshold": 1}, "inline_treshold"),
        ({"uri": "x", "inline_threshold": -1}, "storage.inline_threshold"),
        ({"uri": "x", "grace_period": "1h"}, "storage.grace_period"),
        ({"uri": "x", "options": []}, "storage.options"),
        ({"uri": "x", "options": {"auto_mkdir": True}}, "it takes none"),
        ({"uri": "s3://b", "options": {"anon": True, "fo": {}}}, "has no key 'fo'; known: anon, "),
        ({"uri": "s3://b", "options": {"client_kwargs": {"loader": 1}}}, "client_kwargs takes endpoint_url, "),
    ],
)
def test_a_bad_storage_block_is_refused_by_name(storage: Any, message: str) -> None:
    with pytest.raises(LTMError, match=r"settings\.ltm") as raised:
        parse_ltm_config({"ltm": {"url": "sqlite://", "storage": storage}})
    assert raised.value.error_type == "configuration_error"
    assert message in str(raised.value)


REFERENCES = {  # a template that runs a command
    "fo": {"version": 1, "templates": {"u": "{{ cycler.__init__.__globals__.os.system('touch ran') }}"},
           "refs": {"a": ["{{ u }}"]}},
    "simple_templates": False,
    "target_protocol": "memory",
}  # fmt: skip


@pytest.mark.parametrize(
    "uri",
    [
        "reference://",
        "reference://x",
        "simplecache::memory://x",
        "simplecache://x",
        "filecache::file:///x",
        "blockcache::file:///x",
        "dir::file:///x",
        "dir://x",
        "zip://x::file:///a.zip",
        "file:///x::reference://",
        "a::b",
        "data:text/plain,x",
        "data://x",
        "http://example.org/x",
        "ftp://x",
        "sftp://x",
        "github://x",
        "generic://x",
        "root://x",
        "FILE:///x",
        "reference:///x://file",
    ],
)
def test_other_protocols_and_chains_are_refused_before_they_are_opened(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LTMError, match=r"storage\.uri must be .* file://, .* memory://, s3://") as raised:
        BlobStorage(uri, options=REFERENCES)
    assert raised.value.error_type == "configuration_error"
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "name", [*REFERENCES, "target_options", "remote_protocol", "fs", "protocol", "template_overrides"]
)
@pytest.mark.parametrize("uri", ["file:///x", "memory://x", "s3://x", "gs://x", "abfs://x"])
def test_no_protocol_takes_an_option_that_leads_elsewhere(uri: str, name: str) -> None:
    with pytest.raises(LTMError, match=f"has no key '{name}'"):
        BlobStorage(uri, options={name: "x"})


def test_the_lowest_permitted_fsspec_runs_no_command_of_a_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the list of protocols: from 2026.6 on the templates of references are rendered in a sandbox."""
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(Exception):
        fsspec.filesystem("reference", **REFERENCES).cat("a")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("uri", "extra"), [("s3://bucket/x", "s3"), ("gs://bucket/x", "gcs"), ("abfs://c/x", "azure")])
def test_a_storage_without_its_library_names_the_extra(uri: str, extra: str) -> None:
    with pytest.raises(LTMError, match=rf"the-edge-agent\[{extra}\]") as raised:
        BlobStorage(uri)
    assert raised.value.error_type == "dependency_missing"
