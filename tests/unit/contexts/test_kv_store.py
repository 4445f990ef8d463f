"""The store of KV states: where passages are found, what stays, who waits for whom."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest
import torch
from kv_places import Builder, ask, make_store, origin, owner, passage, states

from pipeline.errors import ConfigurationError, LimitExceededError, StorageError, WorkCancelledError
from pipeline.lm import kv_file
from pipeline.lm.kv_store import KvStore

FORMATS = ["native", "float16", "bfloat16", "int8", "int4"]


@pytest.mark.parametrize("kind", FORMATS)
def test_built_once_then_from_memory_then_from_disk(tmp_path, kind):
    store = make_store(tmp_path, kind)
    three = [passage(n) for n in range(3)]
    assert ask(store, three) == ["built"] * 3
    assert ask(store, three[::-1]) == ["memory"] * 3
    store.flush()
    assert store.where(three[0], origin(store)) == "memory"
    store.close()
    again = make_store(tmp_path, kind)
    assert again.where(three[0], origin(again)) == "disk"
    assert ask(again, [*three, three[0]]) == ["disk"] * 4  # the same passage twice is read once
    assert again.stats()["disk"]["hits"] == 3
    again.close()


@pytest.mark.parametrize("size", [1, 100, 2**20])
def test_pieces_that_are_verified_do_not_end_where_tensors_do(monkeypatch, size):
    monkeypatch.setattr(kv_file, "PIECE_BYTES", size)
    data = [bytes(range(256)) * 3, b"", b"x" * 33]
    whole = b"".join(data)
    expected = [hashlib.sha256(whole[at : at + size]).hexdigest() for at in range(0, len(whole), size)]
    assert list(kv_file._digests([memoryview(part) for part in data])) == expected


def test_files_are_readable_safetensors_that_name_nobody(tmp_path):
    from safetensors import safe_open

    store = make_store(tmp_path)
    ask(store, [passage(1)])
    store.flush()
    [path] = tmp_path.glob("*/*/*.safetensors")
    with safe_open(path, "pt") as file:
        assert torch.equal(file.get_tensor("keys"), states(passage(1)).keys)
    told = path.read_bytes() + str(path).encode()
    for secret in (b"acme", b"lease", b"contracts"):
        assert secret not in told
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "kv.secret").stat().st_mode & 0o077 == 0


def test_tenants_share_nothing(tmp_path):
    store = make_store(tmp_path)
    ask(store, [passage(1, of=owner(tenant="acme"))])
    assert ask(store, [passage(1, of=owner(tenant="other"))]) == ["built"]
    assert ask(store, [passage(1, of=owner(tenant="acme"))]) == ["memory"]
    store.close()


@pytest.mark.parametrize("changed", ["model", "tokenizer", "prefix", "positions", "dtype", "layout"])
def test_states_of_another_origin_are_a_miss(tmp_path, changed):
    store = make_store(tmp_path)
    ask(store, [passage(1)])
    store.flush()
    assert ask(store, [passage(1)], **{changed: "another"}) == ["built"]
    store.flush()
    found = {c.state: c.why for c in store.check([owner()], origin(store))}
    assert found == {"ok": "", "stale": f"another {changed}"}
    assert store.prune(checked=store.check([owner()], origin(store)))[0] == 1
    assert ask(store, [passage(1)]) == ["memory"]
    store.close()


def test_removed_with_its_document_from_memory_and_disk(tmp_path):
    store = make_store(tmp_path)
    gone, kept = passage(1, of=owner("gone")), passage(1, of=owner("kept"))
    ask(store, [gone, kept])
    store.remove([owner("gone")])
    assert [store.where(p, origin(store)) for p in (gone, kept)] == [None, "memory"]
    store.flush()
    assert len(list(tmp_path.glob("*/*/*.safetensors"))) == 1
    store.close()


def test_removed_while_held_is_not_kept(tmp_path):
    store = make_store(tmp_path)
    key = passage(1)
    with store.hold([key], origin(store), Builder([key])) as [held]:
        store.remove([owner()])
        assert torch.equal(store.states(held).keys, states(key).keys)
    assert store.where(key, origin(store)) is None
    assert store.memory.bytes == 0
    store.close()
    assert not list(tmp_path.glob("*/*/*"))


def test_removed_while_it_is_built_leaves_no_file(tmp_path):
    store = make_store(tmp_path)
    key = passage(1)

    def build(number):
        store.remove([owner()])
        return states(key)

    with store.hold([key], origin(store), build):
        pass
    store.close()
    assert not list(tmp_path.glob("*/*/*.safetensors"))


def test_a_scan_does_not_displace_what_is_used(tmp_path):
    store = make_store(None, memory_passages=20)
    hot = [passage(n) for n in range(12)]
    for _ in range(6):
        ask(store, hot)
    for n in range(100, 400):
        ask(store, [passage(n)])
        assert store.memory.bytes <= store.memory.budget_bytes
    assert ask(store, hot) == ["memory"] * 12
    assert store.evicted_tokens() == (10 * store.memory.evicted, 0)
    assert store.memory.evicted >= 280


def test_a_scan_does_not_displace_what_is_used_on_disk(tmp_path):
    make_store(tmp_path).close()
    size = 16 * 1024 + make_store().passage_bytes(10)
    store = make_store(tmp_path, memory_passages=1, disk_bytes=10 * size)
    hot = [passage(n) for n in range(4)]
    for _ in range(6):
        for one in hot:
            ask(store, [one])
    for n in range(100, 160):
        ask(store, [passage(n)])
    store.flush()
    assert [ask(store, [one]) for one in hot] == [["disk"]] * 4
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
    assert on_disk <= 10 * size
    assert store.stats()["disk"]["bytes"] == on_disk
    assert store.stats()["disk"]["evicted"] > 0
    assert store.evicted_tokens()[1] >= 10 * store.stats()["disk"]["evicted"]
    store.close()


def test_dear_entries_stay_longer_than_cheap_ones():
    store = make_store(None, memory_passages=2)
    dear, cheap = passage(1), passage(2)

    def slowly(number):
        time.sleep(0.05)
        return states(dear)

    with store.hold([dear], origin(store), slowly):
        pass
    ask(store, [cheap])
    ask(store, [passage(3)])
    assert [store.where(p, origin(store)) for p in (dear, cheap)] == ["memory", None]


def test_use_counts_are_halved_and_bounded():
    from pipeline.lm.kv_value import Use, Uses

    uses = Uses(sample=100)
    for _ in range(40):
        uses.touch("old")
    for n in range(1_000):
        uses.touch(f"once {n}")
    assert uses.count("old") <= 1
    assert len(uses._counts) <= 100
    assert uses.worth("new", Use(10, 1.0)) == (0.0, 0)


def test_what_cannot_fit_is_refused_before_any_work():
    store = make_store(None, memory_passages=2)
    three = [passage(n) for n in range(3)]
    builder = Builder(three)
    with (
        pytest.raises(LimitExceededError, match=r"3 passages take .* budget"),
        store.hold(three, origin(store), builder),
    ):
        pass
    assert builder.built == []
    assert ask(store, three[:2]) == ["built"] * 2


@pytest.mark.parametrize(("memory", "disk"), [(0, 0), (-1, 0), (1, -1)])
def test_senseless_budgets_are_refused(memory, disk):
    with pytest.raises(ConfigurationError, match="budgets"):
        KvStore(make_store().shape, memory_bytes=memory, disk_bytes=disk)


def test_a_disk_budget_smaller_than_a_passage_keeps_memory_working(tmp_path):
    store = make_store(tmp_path, disk_bytes=10)
    assert ask(store, [passage(1)]) == ["built"]
    store.flush()
    assert ask(store, [passage(1)]) == ["memory"]
    assert store.stats()["tokens"]["unwritten"] == 1
    assert not list(tmp_path.rglob("*.safetensors"))
    store.close()


def test_concurrent_requests_build_a_passage_once(tmp_path):
    store = make_store(tmp_path)
    key, started = passage(1), threading.Barrier(6)
    built, found = [], []

    def build(number):
        built.append(number)
        time.sleep(0.1)
        return states(key)

    def run():
        started.wait()
        with store.hold([key], origin(store), build) as [held]:
            found.append((held.found, held.tensors["keys"].data_ptr()))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [0]
    assert sorted(where for where, _ in found) == ["built", *["memory"] * 5]
    assert len({place for _, place in found}) == 1
    store.close()


def test_when_the_builder_fails_one_who_waits_takes_over():
    store = make_store()
    key, building, results = passage(1), threading.Event(), []

    def fail(number):
        building.set()
        time.sleep(0.1)
        raise ZeroDivisionError

    def first():
        with pytest.raises(ZeroDivisionError), store.hold([key], origin(store), fail):
            pass

    thread = threading.Thread(target=first)
    thread.start()
    building.wait()
    results += ask(store, [key])
    thread.join()
    assert results == ["built"]
    assert ask(store, [key]) == ["memory"]


def test_a_failed_build_leaves_no_bytes_behind():
    store = make_store()
    with pytest.raises(ZeroDivisionError), store.hold([passage(1)], origin(store), lambda n: 1 / 0):
        pass
    assert (store.memory.bytes, len(store.memory)) == (0, 0)


def test_waiting_for_memory_can_be_cancelled_and_goes_on_when_there_is_room():
    store = make_store(None, memory_passages=1)
    held_key, other = passage(1), passage(2)
    with store.hold([held_key], origin(store), Builder([held_key])):
        stopped = store.hold([other], origin(store), Builder([other]), lambda: True)
        with pytest.raises(WorkCancelledError), stopped:
            pass
        waiting = threading.Thread(target=ask, args=(store, [other]))
        waiting.start()
        time.sleep(0.1)
        assert waiting.is_alive()
    waiting.join(5)
    assert store.where(other, origin(store)) == "memory"
    assert store.memory.peak_bytes <= store.memory.budget_bytes


def test_requests_that_want_each_others_passages_do_not_wait_in_a_circle():
    store = make_store(None, memory_passages=3)
    sets = [[passage(n % 4), passage((n + 1) % 4), passage((n + 2) % 4)] for n in range(4)]
    threads = [threading.Thread(target=lambda s=s: [ask(store, s) for _ in range(20)]) for s in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert store.memory.peak_bytes <= store.memory.budget_bytes
    assert store.memory.held_bytes == 0


def test_fifty_requests_over_a_thousand_passages_keep_both_budgets(tmp_path):
    passages = [passage(n) for n in range(1000)]
    store = make_store(tmp_path, memory_passages=150, disk_bytes=400 * 20_000)
    for request in range(50):
        ask(store, [passages[(request * 37 + n * 53) % 1000] for n in range(20)])
        store.flush()
        disk = sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))
        assert disk <= 400 * 20_000
        tensors = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                   for entry in store.memory._entries.values() for t in entry.tensors.values()}  # fmt: skip
        assert sum(tensors.values()) <= 1.05 * store.memory.budget_bytes
        assert store.memory.bytes <= store.memory.budget_bytes
    store.close()


def test_a_full_disk_costs_nothing_but_the_file(tmp_path, monkeypatch):
    import errno

    from pipeline.lm import kv_file

    store, replace = make_store(tmp_path), kv_file.Path.replace

    def full(path, target):
        if path.suffix == ".tmp":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(path, target)

    monkeypatch.setattr(kv_file.Path, "replace", full)
    assert ask(store, [passage(1)]) == ["built"]
    store.flush()
    assert store.stats()["disk"]["failed_writes"] == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "kv.secret"]
    monkeypatch.undo()
    assert ask(store, [passage(2)]) == ["built"]
    store.flush()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    store.close()


def test_leftovers_of_killed_writers_are_pruned(tmp_path):
    import os

    store = make_store(tmp_path)
    ask(store, [passage(1)])
    store.flush()
    [path] = tmp_path.rglob("*.safetensors")
    old, young = path.with_name(".x-1-ab.tmp"), path.with_name(".y-1-ab.tmp")
    for each in (old, young):
        each.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.prune()
    assert (old.exists(), young.exists(), path.exists()) == (False, True, True)
    assert store.prune(0)[0] == 1
    assert not path.exists()
    store.close()


def test_two_processes_may_write_the_same_entry(tmp_path):
    """Two stores on one folder, as two processes have them: each finds what the other wrote."""
    first, second = make_store(tmp_path), make_store(tmp_path)
    keys = [passage(n) for n in range(10)]
    threads = [threading.Thread(target=ask, args=(store, keys)) for store in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first.close()
    second.close()
    third = make_store(tmp_path)
    assert ask(third, keys) == ["disk"] * 10
    assert {c.state for c in third.check([owner()], origin(third))} == {"ok"}
    third.remove([owner()])
    assert third.stats()["disk"]["bytes"] == 0
    third.close()


def test_files_of_vanished_documents_are_orphans(tmp_path):
    store = make_store(tmp_path)
    ask(store, [passage(1, of=owner("gone")), passage(1, of=owner("kept"))])
    store.flush()
    states_found = sorted(c.state for c in store.check([owner("kept")], None))
    assert states_found == ["ok", "orphan"]
    store.close()


def test_a_damaged_secret_is_told(tmp_path):
    (tmp_path / "kv.secret").write_bytes(b"short")
    with pytest.raises(StorageError, match="5 bytes"):
        make_store(tmp_path)
