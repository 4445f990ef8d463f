"""A damaged KV file is a miss and is built again: never a wrong token. An intact one is a hit."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "contexts"))

from kv_places import Builder, make_store, origin, owner, passage, states

KINDS = ("flip", "truncate", "extend", "swap", "tenant", "stale", "zero", "header", "empty", "foreign")


def damage(kind: str, path: Path, others: list[Path], rng: random.Random) -> None:
    """Do to a file what disks, crashes and attackers do."""
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    if kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del content[at:]
    elif kind == "extend":
        content += rng.randbytes(rng.randrange(1, 100))
    elif kind in {"swap", "tenant", "stale"}:
        content = bytearray(rng.choice(others).read_bytes())
    elif kind == "zero":
        content[at : at + 512] = bytes(len(content[at : at + 512]))
    elif kind == "header":
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        told = json.loads(header["__metadata__"]["manifest"])
        told[rng.choice(["tokens", "name", "owner", "version"])] = rng.choice(["0", 7, None])
        header["__metadata__"]["manifest"] = json.dumps(told)
        changed = json.dumps(header).encode()
        content = bytearray(len(changed).to_bytes(8, "little") + changed + content[8 + length :])
    elif kind == "empty":
        content = bytearray()
    elif kind == "foreign":
        content = bytearray(rng.randbytes(rng.choice([1, 8, 9, 4096])))
    if bytes(content) != path.read_bytes():
        path.write_bytes(content)
    else:  # zeros over zeros
        path.write_bytes(content[:-1])


def run(folder: Path, cases: int) -> dict[str, int]:
    """Damage one of several files at a time; returns how often a hit, a rebuild and a wrong state came."""
    rng, counts = random.Random(7), {"hits": 0, "rebuilt": 0, "wrong": 0}
    store = make_store(folder)
    mine = [passage(n) for n in range(4)]
    strangers = [passage(n, of=owner(tenant="other")) for n in range(2)]
    for some, changes in ((mine, {}), (strangers, {}), (mine, {"model": "older"})):
        with store.hold(some, origin(store, **changes), Builder(some)):
            pass
    store.flush()
    address = {key: folder / store._keys.address(key, origin(store)).path for key in mine}
    other_tenant = [folder / store._keys.address(key, origin(store)).path for key in strangers]
    stale = [folder / store._keys.address(key, origin(store, model="older")).path for key in mine]
    for case in range(cases):
        kind, key = KINDS[case % len(KINDS)], mine[rng.randrange(len(mine))]
        others = {"tenant": other_tenant, "stale": stale}.get(
            kind, [p for k, p in address.items() if k != key]
        )
        damage(kind, address[key], others, rng)
        store.memory.clear()
        builder = Builder(mine)
        with store.hold(mine, origin(store), builder) as held:
            for one in held:
                good = states(one.key)
                got = store.states(one)
                counts["wrong"] += not (
                    torch.equal(got.keys, good.keys) and torch.equal(got.values, good.values)
                )
                counts["hits"] += one.found == "disk"
        assert builder.built == [mine.index(key)], (kind, case)
        counts["rebuilt"] += 1
        store.flush()
    store.close()
    return counts


def test_damaged_files_are_rebuilt_and_intact_ones_hit(tmp_path):
    assert run(tmp_path, 60) == {"hits": 180, "rebuilt": 60, "wrong": 0}


@pytest.mark.slow
def test_a_thousand_damaged_files(tmp_path):
    counts = run(tmp_path, 1000)
    print(f"KV damage: 1000 cases, {counts['wrong']} wrong (95 % below 0.3 %), {counts['rebuilt']} rebuilt, "
          f"{counts['hits']} of 3000 intact files hit")  # fmt: skip
    assert counts == {"hits": 3000, "rebuilt": 1000, "wrong": 0}


@pytest.mark.parametrize("kind", ["int4", "bfloat16"])
def test_every_format_is_covered_by_the_seal(tmp_path, kind):
    store = make_store(tmp_path, kind)
    key = passage(1, tokens=9)
    with store.hold([key], origin(store), Builder([key])):
        pass
    store.flush()
    [path] = tmp_path.rglob("*.safetensors")
    content = path.read_bytes()
    for at in range(0, len(content), 97):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        store.memory.clear()
        with store.hold([key], origin(store), Builder([key])) as [held]:
            assert held.found == "built"
        store.flush()
    store.close()
