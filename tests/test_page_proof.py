"""The proof of an event in the browser: what holds is verified, and nothing else ever is."""

import base64
import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from auditplane import log, merkle
from auditplane.checkpoint import (
    PROOF_HEADER,
    Checkpoint,
    SignerKey,
    parse_checkpoint,
    parse_proof,
    parse_verifier_key,
    sign_checkpoint,
    sign_note,
    verify_proof,
)
from auditplane.errors import ProofError
from auditplane.http import logs, page
from auditplane.store.sqlite.account import AccountStore
from engine_model import START_US, opened, record, spec
from server import Server, make_key, run, start
from test_api_log import ask

Json = Any
UNKNOWN: Final = "\N{REPLACEMENT CHARACTER}"
Given = dict[str, Json]

PAGE: Final = Path(page.__file__).parent
ORIGIN: Final = "http://localhost:9"  # Nobody listens: what is asked for is answered from here.
POLICY: Final = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
KEY: Final = SignerKey("auditplane/test/default", bytes(range(32)))
OTHER_KEY: Final = SignerKey("auditplane/test/default", bytes(32))
OTHER_LOG: Final = SignerKey("auditplane/other/default", bytes(range(32)))
CHROMIUM: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
VERIFY_ALL: Final = """async (text) => {
    const { verify } = await import("/static/proof.js");
    const checked = async (given) => {
        const asked = [];
        const consistency = async (from, to) => {
            asked.push([from, to]);
            if (!given.paths) throw new Error("The server could not be reached.");
            return given.paths[`${from}-${to}`];
        };
        const steps = [];
        const run = verify({ ...given, consistency });
        for (;;) {
            const { done, value } = await run.next();
            if (done) return { ...value, steps, asked };
            steps.push(value);
        }
    };
    const verdicts = [];
    for (const given of JSON.parse(text)) verdicts.push(await checked(given));
    return JSON.stringify(verdicts);
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        yield browser
        browser.close()


def serve_files(context: BrowserContext, url: str, pages: dict[str, str]) -> None:
    """Has the browser find the static files and some pages at a server, under the policy of the page."""

    def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path
        headers = {"Content-Security-Policy": POLICY}
        if path in pages:
            route.fulfill(body=pages[path], content_type="text/html; charset=utf-8", headers=headers)
        else:
            route.fulfill(path=PAGE / path.removeprefix("/"), headers=headers)

    context.route(f"{url}/static/**", answer)
    for path in pages:
        context.route(f"{url}{path}", answer)


@pytest.fixture(scope="module")
def tab(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context()
    serve_files(context, ORIGIN, {"/": "<!doctype html><title>Proof</title>"})
    opened_page = context.new_page()
    opened_page.goto(f"{ORIGIN}/")
    yield opened_page
    context.close()


def verdicts(tab: Page, cases: list[Given]) -> list[Json]:
    """What the browser says of each. As text, since Playwright takes long to encode many values."""
    return list(json.loads(tab.evaluate(VERIFY_ALL, json.dumps(cases))))


# Real logs.


@dataclass
class Trail:
    """A log that grew from event to event: its proofs, by index and size, and what is between two sizes."""

    proofs: dict[tuple[int, int], log.Proven]
    path: Callable[[int, int], list[bytes]]

    def given(self, index: int, size: int, before: str | None = None) -> Given:
        """What the page hands to the browser's verifier."""
        return given_of(self.proofs[index, size], before)

    def kept(self, size: int) -> str:
        """What a browser keeps that saw the log of a size."""
        return kept(KEY, self.proofs[0, size].signed.note)

    def consistency(self, old: int, new: int) -> Json:
        """As the server answers."""
        return {"from": old, "to": new, "path": [encoded(each) for each in self.path(old, new)]}


def kept(key: SignerKey, note: bytes) -> str:
    return json.dumps({"key": str(key.verifier), "checkpoint": note.decode()})


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def given_of(proven: log.Proven, before: str | None) -> Given:
    stored = proven.stored
    return {
        "shown": stored.doc.decode(),
        "expected": {
            "index": stored.index,
            "entry": merkle.entry(stored.doc, stored.stamp).hex(),
            "origin": KEY.name,
        },
        "proof": logs.proof_members(proven),
        "served": str(KEY.verifier),
        "kept": before,
    }


def grow(store: AccountStore, size: int, now: int) -> list[str]:
    have = log.checkpoint(store, KEY, lambda: now).size
    texts = [f"Grün „quoted“ \N{PILE OF POO} \\ {UNKNOWN} {number}" for number in range(have, size)]
    return record(store, [spec(description=text) for text in texts], now)


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trail]:
    """Each size up to 70: all entries of most, some of the others and of larger logs."""
    chosen = random.Random(5)
    proofs: dict[tuple[int, int], log.Proven] = {}
    ids: list[str] = []
    with opened(tmp_path_factory.mktemp("trail") / "default.db") as store:
        for size in [*range(1, 71), 255, 256, 257, 511, 1000, 1025]:
            now = START_US + size * 2_000_000
            ids += grow(store, size, now)
            few = {0, size - 1, *chosen.sample(range(size), min(size, 8))}
            indexes = range(size) if size in (*range(34), 63, 64, 65, 70) else sorted(few)
            for index in indexes:
                proofs[index, size] = log.proof(store, ids[index], KEY, partial(int, now))
            assert proofs[0, size].signed.size == size
        yield Trail(proofs, lambda old, new: log.consistency(store, old, new))


def python_verifies(given: Given) -> bool:
    """What the page's first five steps say, by the verifier of the server's own modules."""
    proof, expected = given["proof"], given["expected"]
    try:
        entry = merkle.entry(proof["doc"].encode(), proof["stamp"].encode())
        lines = [PROOF_HEADER, f"index {proof['index']}", *proof["path"]]
        read = parse_proof("\n".join([*lines, "", proof["checkpoint"]]).encode())
        key = parse_verifier_key(given["served"])
        keys = [key] if key.name == expected["origin"] else []  # a person would have chosen it by its name
        signed = verify_proof(read, merkle.leaf_hash(entry), expected["origin"], keys)
        said = (given["shown"], expected["entry"], expected["index"], proof["size"], proof["root"])
        return said == (proof["doc"], entry.hex(), read.index, signed.size, encoded(signed.root))
    except (ProofError, ValueError, TypeError, KeyError, AttributeError):
        return False


# What holds.


def test_each_entry_of_each_size_is_verified(tab: Page, trail: Trail) -> None:
    cases = [trail.given(*each) for each in trail.proofs]
    assert all(python_verifies(given) for given in cases[::17])
    for given, found in zip(cases, verdicts(tab, cases), strict=True):
        assert found["verified"], found
        assert found["isFirst"]
        assert [step["number"] for step in found["steps"]] == list(range(1, 8))
        assert found["facts"]["entry"] == given["expected"]["entry"]


def test_growth_between_all_sizes_is_verified_and_remembered(tab: Page, trail: Trail) -> None:
    cases, pairs = [], []
    sizes = [*range(1, 41), 70, 256, 257, 1000, 1025]
    for new in sizes:
        for old in [old for old in sizes if old <= new]:
            given = trail.given(old - 1 if new <= 70 and old in (1, new) else 0, new, trail.kept(old))
            cases.append(given | {"paths": {f"{old}-{new}": trail.consistency(old, new)}})
            pairs.append([old, new])
    for given, (old, new), found in zip(cases, pairs, verdicts(tab, cases), strict=True):
        assert found["verified"], found
        assert not found["isFirst"]
        assert json.loads(found["remember"]) == {
            "key": given["served"],
            "checkpoint": given["proof"]["checkpoint"],
        }
        assert found["asked"] == ([] if old == new else [[old, new]])


# What does not hold.


def flipped(text: str, at: int, bit: int) -> str:
    return text[:at] + chr(ord(text[at]) ^ 1 << bit) + text[at + 1 :]


def bits(given: Given, chosen: random.Random) -> Iterator[Given]:
    """The same with one bit another: each place of each text, and each hash of the path."""
    proof = given["proof"]
    for name in ("doc", "stamp", "root", "checkpoint"):
        for at in range(len(proof[name])):
            yield put(given, "proof", name, flipped(proof[name], at, chosen.randrange(7)))
    for number, text in enumerate(proof["path"]):
        for at in range(len(text)):
            path = [*proof["path"]]
            path[number] = flipped(text, at, chosen.randrange(7))
            yield put(given, "proof", "path", path)
    for name in ("served", "shown"):
        for at in range(len(given[name])):
            yield given | {name: flipped(given[name], at, chosen.randrange(7))}
    for at in range(64):
        yield put(given, "expected", "entry", flipped(given["expected"]["entry"], at, 0))


def put(given: Given, part: str, name: str, value: Json) -> Given:
    return given | {part: given[part] | {name: value}}


def agreeing(given: Given) -> Given:
    """With page and proof altered alike: the log alone can tell."""
    proof = given["proof"]
    entry = merkle.entry(proof["doc"].encode(), proof["stamp"].encode()).hex()
    expected = given["expected"] | {"entry": entry, "index": proof["index"]}
    return given | {"shown": proof["doc"], "expected": expected}


def structures(given: Given, trail: Trail) -> Iterator[Given]:
    """Other shapes, other places, other logs."""
    proof = given["proof"]
    path, index, size = proof["path"], proof["index"], proof["size"]
    for other in (
        [],
        path[:-1],
        path[1:],
        path[::-1],
        [*path, path[-1]],
        [path[0], *path],
        [*path, encoded(b"")],
    ):
        if other != path:
            yield put(given, "proof", "path", other)
    for other_given in (trail.given(0, 70), trail.given(0, size + 1), trail.given(size, size + 1)):
        for name in ("doc", "stamp", "root", "checkpoint", "path"):
            if other_given["proof"][name] != proof[name]:
                yield put(given, "proof", name, other_given["proof"][name])
    yield put(given, "expected", "origin", OTHER_LOG.name)
    yield put(given, "expected", "index", index + 1)
    yield from odd(given)
    yield from elsewhere(given, index, size)
    yield from notes(given, proof["checkpoint"])


def odd(given: Given) -> Iterator[Given]:
    """Members of other types, or none."""
    proof = given["proof"]
    values: list[Json] = [None, [], {}, True, -1, 1.5, 2**53, "", "0", "\ud800"]
    for name in proof:
        yield given | {"proof": {each: proof[each] for each in proof if each != name}}
        yield from (put(given, "proof", name, value) for value in values)
    yield from (given | {"proof": value} for value in values)
    # What is no text has the bytes of this character in its place, where nobody looks.
    no_text = proof["doc"].replace(UNKNOWN, "\ud800")
    yield put(given, "proof", "doc", no_text) | {"shown": no_text}
    keys = [str(key.verifier) for key in (OTHER_KEY, OTHER_LOG)]
    yield from (given | {"served": value} for value in [*values, *keys])


def elsewhere(given: Given, index: int, size: int) -> Iterator[Given]:
    """Other indexes and sizes."""
    for number in (*range(size + 2), 2**32 + index, 2**53 - 1):
        if number != index:
            yield agreeing(put(given, "proof", "index", number))
        if number != size:
            yield put(given, "proof", "size", number)


def notes(given: Given, note: str) -> Iterator[Given]:
    """Checkpoints that others have signed, that are of other logs, or are not written as they should be."""
    text, _, signature = note.partition("\n\n")
    checkpoint = parse_checkpoint(text + "\n")
    by_other = sign_checkpoint(checkpoint, [OTHER_KEY]).decode()
    renamed = Checkpoint(OTHER_LOG.name, checkpoint.size, checkpoint.root)
    wrong = f"{signature[:-9]}AAAAAAA=\n"
    for other in (
        by_other,
        sign_checkpoint(renamed, [OTHER_LOG]).decode(),
        sign_checkpoint(renamed, [KEY]).decode(),
        sign_checkpoint(Checkpoint(KEY.name, checkpoint.size + 1, checkpoint.root), [KEY]).decode(),
        sign_checkpoint(Checkpoint(KEY.name, checkpoint.size, bytes(32)), [KEY]).decode(),
        f"{text}\n\n{signature}{wrong}",
        f"{text}\n\n{wrong}{signature}",
        f"{text}\n\n{signature}\n",
        f"{text}\n\n{signature[:-1]}",
        f"{text}\n\n",
        f"{text}\n{signature}",
        f"{text}\n\n{signature * 101}",
        f"{text}\nmore\n\n{signature}",
        note.replace("\n", "\r\n"),
        note.replace(f"\n{checkpoint.size}\n", f"\n0{checkpoint.size}\n"),
        note.replace(KEY.name, OTHER_LOG.name),
    ):
        yield put(given, "proof", "checkpoint", other)
    size, root = checkpoint.size, encoded(checkpoint.root)
    for lines in (
        f"0{size}\n{root}",
        f"+{size}\n{root}",
        f"{size}",
        f"{size}\n{root}\n\nmore",
        f"{size}\n{root[:-1]}",
    ):
        signed = sign_note(f"{KEY.name}\n{lines}\n", [KEY]).decode()
        yield put(given, "proof", "checkpoint", signed)
    by_its_key = sign_checkpoint(checkpoint, [OTHER_LOG]).decode()
    yield put(given, "proof", "checkpoint", by_its_key) | {"served": str(OTHER_LOG.verifier)}


@pytest.mark.parametrize(("index", "size"), [(0, 1), (4, 7), (37, 69)])
def test_nothing_altered_is_ever_verified(tab: Page, trail: Trail, index: int, size: int) -> None:
    chosen = random.Random(size)
    given = trail.given(index, size)
    altered = [*bits(given, chosen), *structures(given, trail)] if size > 1 else [*bits(given, chosen)]
    altered += [
        agreeing(each) for each in bits(given, chosen) if each["proof"]["doc"] != given["proof"]["doc"]
    ]
    altered = [each for each in altered if each != given]
    assert not any(map(python_verifies, altered))
    for each, found in zip(altered, verdicts(tab, altered), strict=True):
        assert not found["verified"], each
        assert found["remember"] is None
        assert found["accept"] is None
        assert [step["state"] for step in found["wrong"]] == ["failed"] * len(found["wrong"]) != [], found


def test_checkpoints_by_several_keys_and_with_more_lines_are_verified(tab: Page, trail: Trail) -> None:
    """As C2SP allows: the verifier in Python agrees."""
    given = trail.given(4, 7)
    checkpoint = parse_checkpoint(given["proof"]["checkpoint"].partition("\n\n")[0] + "\n")
    extended = Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, ("more", "lines"))
    cases = [
        put(given, "proof", "checkpoint", sign_checkpoint(each, keys).decode())
        for each in (checkpoint, extended)
        for keys in ([KEY], [OTHER_LOG, KEY], [KEY, OTHER_KEY])
    ]
    assert all(map(python_verifies, cases))
    assert all(found["verified"] for found in verdicts(tab, cases))


def test_an_entry_can_not_be_cut_elsewhere(tab: Page, trail: Trail) -> None:
    """Another doc and stamp that give the same entry: the line feed between them is moved."""
    given = copy.deepcopy(trail.given(4, 7))
    proof = given["proof"]
    whole = f"{proof['doc']}\n{proof['stamp']}"
    cases = []
    for at in range(len(whole)):
        cut = {"doc": whole[:at], "stamp": whole[at + 1 :]}
        if cut["doc"] != proof["doc"]:
            cases.append(agreeing(given | {"proof": proof | cut}))
    assert not any(found["verified"] for found in verdicts(tab, cases))


def test_paths_of_another_length_are_not_verified_whatever_root_is_signed(tab: Page, trail: Trail) -> None:
    given = trail.given(0, 8)
    leaf = merkle.leaf_hash(bytes.fromhex(given["expected"]["entry"]))
    hashes = [base64.b64decode(each) for each in given["proof"]["path"]]
    roots = [leaf]
    for each in hashes:
        roots.append(merkle.node_hash(roots[-1], each))
    cases = [signed_as(given, hashes[:length], roots[length]) for length in range(4)]
    beyond = bytes(32)
    further = (merkle.node_hash(beyond, roots[3]), merkle.node_hash(roots[3], beyond))
    cases += [signed_as(given, [*hashes, beyond], root) for root in further]
    right = [False, False, False, True, False, False]
    assert [python_verifies(each) for each in cases] == right
    assert [found["verified"] for found in verdicts(tab, cases)] == right


def signed_as(given: Given, path: list[bytes], root: bytes) -> Given:
    """With a path to a root that the key of the log has signed."""
    note = sign_checkpoint(Checkpoint(KEY.name, given["proof"]["size"], root), [KEY]).decode()
    changed = {"path": list(map(encoded, path)), "root": encoded(root), "checkpoint": note}
    return given | {"proof": given["proof"] | changed}


def test_a_log_that_forks_or_shrinks_is_never_verified(tab: Page, trail: Trail) -> None:
    chosen = random.Random(9)
    cases, codes = [], []
    for old, new in ((3, 3), (1, 7), (4, 7), (6, 7), (8, 40), (37, 69), (256, 1025)):
        answer = trail.consistency(old, new)
        given = trail.given(0, new, trail.kept(old)) | {"paths": {f"{old}-{new}": answer}}
        other = sign_checkpoint(Checkpoint(KEY.name, old, chosen.randbytes(32)), [KEY])
        paths = [answer["path"][1:], [*answer["path"], encoded(bytes(32))]] if old < new else []
        for number in range(len(answer["path"])):
            path = [*answer["path"]]
            path[number] = encoded(chosen.randbytes(32))
            paths.append(path)
        cases.append(given | {"kept": kept(KEY, other)})
        cases += [given | {"paths": {f"{old}-{new}": answer | {"path": path}}} for path in paths]
        codes += ["fork"] * (len(paths) + 1)
        cases.append(trail.given(0, old, trail.kept(new)))
        codes.append("fork" if old == new else "shrunk")
    for given, code, found in zip(cases, codes, verdicts(tab, cases), strict=True):
        if given["kept"] == trail.kept(3) and given["proof"]["size"] == 3:
            assert found["verified"]  # the same log, seen again
            continue
        assert not found["verified"]
        assert found["remember"] is None
        assert [step["code"] for step in found["wrong"]] == [code], found


def test_growth_that_is_not_proved_is_not_verified(tab: Page, trail: Trail) -> None:
    given = trail.given(0, 7, trail.kept(4))
    answer = trail.consistency(4, 7)
    bad = [
        None,
        {},
        answer | {"from": 3},
        answer | {"to": 8},
        answer | {"path": "x"},
        answer | {"path": ["x"]},
    ]
    cases = [given, *(given | {"paths": {"4-7": each}} for each in bad)]
    found = verdicts(tab, cases)
    assert not any(each["verified"] or each["remember"] for each in found)
    assert [each["wrong"][0]["state"] for each in found] == ["unable"] + ["failed"] * len(bad)


def test_damaged_memory_is_not_taken_for_the_first_time(tab: Page, trail: Trail) -> None:
    whole = json.loads(trail.kept(4))
    mixed = json.dumps(whole | {"key": str(OTHER_LOG.verifier)})
    texts = ["", "{", "null", "{}", "[]", mixed, *(json.dumps(whole | {name: 7.5}) for name in whole)]
    for found in verdicts(tab, [trail.given(0, 7, text) for text in texts]):
        assert not found["verified"]
        assert {step["state"] for step in found["wrong"]} == {"unable"}


# The view, at a real server.


@dataclass
class Site:
    """A server with an event, and a browser on its page."""

    server: Server
    secret: str
    event_id: str
    tab: Page

    def proof(self) -> Json:
        status, _, body = ask(self.server, f"/v1/audit-events/{self.event_id}/proof", self.secret)
        assert status == 200, body
        return json.loads(body)

    def open(self) -> None:
        """Opens the page of the event anew."""
        self.tab.goto(f"{self.server.url}/events/{self.event_id}")
        expect(self.tab.locator(".chart canvas")).to_be_visible()

    def verify(self) -> str:
        """Presses the button, and returns the verdict."""
        self.tab.get_by_role("button", name="Verify in this browser").click()
        verdict = self.tab.locator(".verdict")
        verdict.wait_for()
        return verdict.inner_text()

    def record(self, count: int = 1) -> None:
        """Has the log grow, and a checkpoint of that signed: a proof of the last event needs one."""
        status, _, body = ask(self.server, "/v1/audit-events", self.secret, [spec(7)] * count)
        assert status == 201, body
        status, _, body = ask(
            self.server, f"/v1/audit-events/{json.loads(body)['ids'][-1]}/proof", self.secret
        )
        assert status == 200, body

    def alter(self, path: str, change: Callable[[Json], Json]) -> None:
        """From now on a lying server: its answers at a path are changed on their way."""

        def answer(route: Route) -> None:
            got = route.fetch()
            route.fulfill(response=got, json=change(got.json()))

        self.tab.context.route(f"{self.server.url}{path}", answer)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("served") / "data", "--workers", "1") as server:
        yield server


def sign_in(context: BrowserContext, server: Server, secret: str) -> None:
    context.request.post(f"{server.url}/sign-in", form={"key": secret}, max_redirects=0)


@pytest.fixture
def site(served: Server, chromium: Browser) -> Iterator[Site]:
    secret = served.admin_key
    status, _, body = ask(served, "/v1/audit-events", secret, [spec(1, description="a <b> & 'c'")])
    assert status == 201, body
    context = chromium.new_context()
    sign_in(context, served, secret)
    site = Site(served, secret, json.loads(body)["ids"][0], context.new_page())
    errors: list[str] = []
    site.tab.on("pageerror", lambda error: errors.append(str(error)))
    site.tab.on("console", lambda said: errors.append(said.text) if "Policy" in said.text else None)
    site.open()
    yield site
    assert errors == []
    context.close()


def test_the_page_asks_for_what_the_api_gives_and_nobody_else_gets_it(site: Site) -> None:
    answer = site.tab.context.request.get(f"{site.server.url}/events/{site.event_id}/proof")
    members = answer.json()
    signed, key = members.pop("signed"), members.pop("key")
    assert members["doc"] == site.proof()["doc"]
    assert members.keys() == site.proof().keys()
    assert signed.endswith("Z")
    assert key == ask(site.server, "/v1/log/default/key", site.secret)[2].decode().strip()
    grown = f"/log/consistency?from=1&to={members['size']}"
    mine = site.tab.context.request.get(f"{site.server.url}{grown}").json()
    assert mine == json.loads(
        ask(site.server, f"/v1{grown.replace('/log/', '/log/default/')}", site.secret)[2]
    )
    for secret in (
        None,
        make_key(site.server.data, "reader", "other")[1],
        make_key(site.server.data, "writer")[1],
    ):
        site.tab.context.clear_cookies()
        if secret:
            sign_in(site.tab.context, site.server, secret)
        answer = site.tab.context.request.get(f"{site.server.url}/events/{site.event_id}/proof")
        assert answer.status in (401, 403, 404)
        assert "doc" not in answer.text()


def test_the_first_time_and_the_next_are_told_apart(site: Site) -> None:
    assert "Verified: this event is entry" in (said := site.verify())
    assert "first check in this browser" in said
    site.record(3)
    site.open()
    assert "Verified: " in (said := site.verify())
    assert "first" not in said
    expect(site.tab.locator(".proof-step.is-ok")).to_have_count(7)
    expect(site.tab.locator(".proof-steps")).to_contain_text("It goes on from the")
    expect(site.tab.locator(".proof-status")).to_have_text("Verified.")
    expect(site.tab.get_by_role("alert")).to_have_count(0)
    copies = site.tab.locator(".proof-facts [data-copy]").evaluate_all(
        "all => all.map((each) => each.dataset.copy)"
    )
    assert site.proof()["root"] in copies


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda proof: proof | {"doc": proof["doc"].replace("ann@", "eve@")},
            "NOT the one that the proof is of",
        ),
        (lambda proof: proof | {"path": proof["path"][:-1]}, "too short"),
        (lambda proof: proof | {"checkpoint": proof["checkpoint"].replace("\n\n", "\nx\n\n")}, "forged"),
        (lambda proof: proof | {"key": str(KEY.verifier)}, "not of auditplane/"),
        (lambda _proof: [], "has no"),
    ],
)
def test_a_lying_server_is_told_loudly(site: Site, change: Callable[[Json], Json], reason: str) -> None:
    site.record()  # so that there is a path
    site.alter("/events/*/proof", change)
    said = site.verify()
    assert "Verified" not in said
    assert reason in said
    assert "auditplane verify --url" in said
    expect(site.tab.get_by_role("alert")).to_have_count(1)
    expect(site.tab.locator(".proof-status")).to_have_text("Not verified.")
    with site.tab.expect_download() as download:
        site.tab.get_by_role("button", name="Keep a copy").click()
    assert json.loads(download.value.path().read_text())["proof"] is not None
    assert site.tab.evaluate("localStorage.length") == 0


def test_a_changed_page_is_told(site: Site) -> None:
    site.tab.evaluate("document.getElementById('event-doc').append(' ')")
    assert "NOT verified" in site.verify()


def test_an_older_log_is_told(site: Site) -> None:
    site.verify()
    older = site.tab.context.request.get(f"{site.server.url}/events/{site.event_id}/proof").json()
    site.record(2)
    site.open()
    site.verify()
    site.alter("/events/*/proof", lambda _proof: older)
    assert "SHRUNK" in site.verify()
    expect(site.tab.get_by_role("alert")).to_have_count(1)


def test_what_the_network_does_is_no_failure_of_the_proof(site: Site) -> None:
    site.verify()
    site.record(2)
    site.open()
    for path in ("/log/consistency*", "/events/*/proof"):
        site.tab.context.route(f"{site.server.url}{path}", lambda route: route.abort())
        assert "could not be finished" in (said := site.verify())
        assert "could not be reached" in said
        expect(site.tab.get_by_role("alert")).to_have_count(0)
        expect(site.tab.locator(".proof-status")).to_have_text("Not verified.")
    site.tab.context.unroute_all()
    site.open()
    site.tab.context.clear_cookies()
    assert "The server answered 401" in site.verify()


@pytest.mark.parametrize("kind", ["importKey", "setItem", "getItem"])
def test_a_browser_that_lacks_something_says_so(site: Site, kind: str) -> None:
    owner = "SubtleCrypto" if kind == "importKey" else "Storage"
    site.tab.evaluate(
        f"() => {{ {owner}.prototype.{kind} = "
        "() => { throw new DOMException('no', 'NotSupportedError'); }; }"
    )
    said = site.verify()
    assert "Verified" not in said
    assert "could not be finished" in said
    assert ("can't check signatures" in said) == (kind == "importKey")
    expect(site.tab.get_by_role("alert")).to_have_count(0)


def test_a_changed_key_is_told_and_can_be_accepted(site: Site) -> None:
    site.verify()
    rotated = run("log", "rotate", "--data", site.server.data)
    assert rotated.returncode == 0, rotated.stderr
    site.open()
    said = site.verify()
    assert "the key of the log has changed" in said
    assert "Verified" not in said
    expect(site.tab.get_by_role("alert")).to_have_count(1)
    site.tab.get_by_role("button", name="Accept the new key…").click()
    expect(site.tab.locator(".proof-accept")).to_contain_text("forgets the old one")
    site.tab.get_by_role("button", name="It is confirmed: trust the new key").click()
    expect(site.tab.locator(".verdict.is-ok")).to_contain_text("Verified: ")
    site.open()
    assert "Verified: " in site.verify()


def test_another_log_at_the_same_address_is_told(site: Site) -> None:
    other = kept(OTHER_LOG, sign_checkpoint(Checkpoint(OTHER_LOG.name, 10**9, bytes(32)), [OTHER_LOG]))
    entry = ["auditplane.log:default", other]
    site.tab.evaluate("([name, text]) => localStorage.setItem(name, text)", entry)
    assert "another log than before" in site.verify()
    site.tab.get_by_role("button", name="Accept the new log…").click()
    site.tab.get_by_role("button", name="It is confirmed: trust the new log").click()
    expect(site.tab.locator(".verdict.is-ok")).to_contain_text("Verified: ")
