// @ts-check
/**
 * Checks the proof of one event in the browser: texts in, steps out. It asks nobody, keeps nothing and shows
 * nothing by itself; `proof_view.js` does that. All hashes and signatures are the browser's own (WebCrypto).
 *
 * It promises that "verified" is said only where each of the steps was taken and held. What is read has
 * exactly the form that the server writes (checkpoint.py, merkle.py): one way to write a number, one to write
 * bytes.
 *
 * - Entries: SHA-256(doc, line feed, stamp), leaves of the Merkle tree of RFC 6962, section 2.1.
 * - Proofs: RFC 9162, sections 2.1.3.2 and 2.1.4.2.
 * - Notes and keys: C2SP signed-note and tlog-checkpoint, Ed25519 only.
 */

/**
 * `shown` is the text of the event on the page, `expected` what the page says beside it. `proof` and
 * `served`, the verifier key, are answers of the server. `kept` is what this browser remembers of the
 * account's log, as a verdict gave it. `consistency` asks the server for the proof between two sizes.
 * @typedef {{
 *   shown: string,
 *   expected: { index: number, entry: string, origin: string },
 *   proof: unknown,
 *   served: unknown,
 *   kept: string | null,
 *   consistency: (from: number, to: number) => Promise<unknown>,
 * }} Given
 */

/**
 * `unable` is no failure of the proof: something kept this browser from checking. `code` names what is wrong.
 * @typedef {{
 *   number: number,
 *   title: string,
 *   state: "ok" | "failed" | "unable" | "skipped",
 *   ok: boolean,
 *   detail: string,
 *   code: string,
 * }} Step
 */

/**
 * What was found on the way, as texts; what is missing was not found.
 * @typedef {{ index?: number, size?: number, entry?: string, root?: string, key?: string }} Facts
 */

/**
 * `remember` is the text to keep after a success, `accept` the one to keep if the person accepts that the key
 * has changed: null where there is none. `isFirst` tells that nothing was remembered. `wrong` are the steps
 * that failed, or those that couldn't be taken where none failed.
 * @typedef {{
 *   verified: boolean,
 *   isFirst: boolean,
 *   wrong: Step[],
 *   facts: Facts,
 *   remember: string | null,
 *   accept: string | null,
 * }} Verdict
 */

/** @typedef {{ name: string, id: Bytes, bytes: Bytes, text: string }} Key */
/**
 * The whole note, and what is in it: its text is what is signed.
 * @typedef {{
 *   whole: string,
 *   text: string,
 *   origin: string,
 *   size: number,
 *   root: Bytes,
 *   signatures: Signature[],
 * }} Note
 */
/** @typedef {{ name: string, id: Bytes, bytes: Bytes }} Signature */
/** @typedef {{ key: Key, note: Note }} Kept */
/** @typedef {{ facts: Facts, entry?: Bytes, note?: Note, isFirst: boolean }} Found */
/** @typedef {Uint8Array<ArrayBuffer>} Bytes */

const HASH_BYTES = 32;
const KEY_BYTES = 32;
const KEY_ID_BYTES = 4;
const SIGNATURES_MAX = 100;
const ED25519 = 1;
const DASH = "\u2014 ";
const DECIMAL = /^(0|[1-9][0-9]{0,18})$/;
const STAMP =
  /^\{"at":"([\d-]{10}T[\d:]{8}\.\d{6}Z)","by":"([^"\\\p{Cc}]*)","salt":"[A-Za-z0-9+/]{21}[AQgw]=="\}$/u;
// No UTF-8 has half a pair of surrogates: TextEncoder would put something else in its place.
const NO_TEXT = /[\x00-\x09\x0b-\x1f]|\p{Surrogate}/u;
const NO_NAME = /[\s\x85+]/u;

/** What is shown or served is not what it should be. */
class Wrong extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** It can't be told here. */
class Unable extends Error {}

/** There is nothing to check. */
class Skipped extends Error {}

// The steps.

/** @typedef {(given: Given, found: Found) => string | Promise<string>} Check */
/** @type {{ title: string, needs: number[], check: Check }[]} */
const STEPS = [
  { title: "The event on this page is the recorded text", needs: [], check: checkShown },
  { title: "Text and stamp give the entry hash", needs: [], check: checkEntry },
  { title: "The entry is in the log", needs: [2], check: checkInclusion },
  { title: "The checkpoint is of this log", needs: [3], check: checkNote },
  { title: "The checkpoint is signed", needs: [4], check: checkSignature },
  { title: "The key is the one that this browser saw first", needs: [5], check: checkKey },
  { title: "The log has only grown since this browser saw it last", needs: [5], check: checkGrowth },
];

export const STEPS_COUNT = STEPS.length;

/**
 * Takes the steps one after the other and gives each with what came of it; returns the verdict.
 * @param {Given} given
 * @returns {AsyncGenerator<Step, Verdict, void>}
 */
export async function* verify(given) {
  /** @type {Found} */
  const found = { facts: {}, isFirst: given.kept === null };
  /** @type {Step[]} */
  const steps = [];
  for (let number = 1; number <= STEPS.length; number++) {
    const step = await take(number, steps, given, found);
    steps.push(step);
    yield step;
  }
  return verdict(steps, found);
}

/**
 * @param {number} number @param {Step[]} before @param {Given} given @param {Found} found
 * @returns {Promise<Step>}
 */
async function take(number, before, given, found) {
  const { title, needs, check } = STEPS[number - 1];
  const missing = needs.find((each) => !before[each - 1].ok);
  if (missing !== undefined) {
    return stepOf(number, title, "skipped", `Not checked, as step ${missing} does not hold.`);
  }
  try {
    return stepOf(number, title, "ok", await check(given, found));
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof Wrong) return stepOf(number, title, "failed", message, error.code);
    if (error instanceof Skipped) return stepOf(number, title, "skipped", message);
    return stepOf(number, title, "unable", message, "unable");
  }
}

/**
 * @param {number} number @param {string} title @param {Step["state"]} state @param {string} detail
 * @returns {Step}
 */
function stepOf(number, title, state, detail, code = "") {
  return { number, title, state, ok: state === "ok", detail, code };
}

/** @param {Step[]} steps @param {Found} found @returns {Verdict} */
function verdict(steps, found) {
  const verified = steps.length === STEPS.length && steps.every((step) => step.ok);
  const failed = steps.filter((step) => step.state === "failed");
  const text = toKeep(found);
  return {
    verified,
    isFirst: found.isFirst,
    wrong: failed.length ? failed : steps.filter((step) => !step.ok),
    facts: found.facts,
    remember: verified ? text : null,
    accept: isOnlyTheKey(steps) ? text : null,
  };
}

/** Whether the change of the key is all that stands against it. @param {Step[]} steps */
function isOnlyTheKey(steps) {
  const [key, growth] = steps.slice(5);
  const rest = steps.slice(0, 5).every((step) => step.ok);
  if (key.code === "key-changed") return rest && growth.ok;
  return rest && key.code === "log-changed" && growth.state === "skipped";
}

/** Step 1. @param {Given} given */
function checkShown({ shown, proof }) {
  if (shown !== lineOf(proof, "doc")) {
    throw new Wrong("shown", "The text that this page shows is NOT the one that the proof is of.");
  }
  return `Byte for byte the text of the proof, ${counted(bytesOf(shown).length)} bytes.`;
}

/** Step 2. @param {Given} given @param {Found} found */
async function checkEntry({ proof, expected }, found) {
  const doc = lineOf(proof, "doc");
  const stamp = STAMP.exec(lineOf(proof, "stamp"));
  if (stamp === null) throw new Wrong("form", "The stamp is not what a server writes beside an event.");
  found.entry = await sha256(bytesOf(`${doc}\n${stamp[0]}`));
  found.facts.entry = hexOf(found.entry);
  if (found.facts.entry !== expected.entry) {
    throw new Wrong("entry", `The entry hash is ${found.facts.entry}; the page shows ${expected.entry}.`);
  }
  const [, at, by] = stamp;
  return `By the stamp recorded at ${at} with the API key ${by}. Entry hash ${found.facts.entry}.`;
}

/** Step 3. @param {Given} given @param {Found} found */
async function checkInclusion({ proof, expected }, found) {
  const index = countOf(proof, "index");
  const size = countOf(proof, "size");
  const path = pathOf(proof);
  const root = hashOf(textOf(proof, "root"));
  const leaf = await leafHash(/** @type {Bytes} */ (found.entry));
  if (index !== expected.index) {
    throw new Wrong("index", `The proof is of entry ${index}; the page shows entry ${expected.index}.`);
  }
  await verifyInclusion(index, size, leaf, path, root);
  Object.assign(found.facts, { index, size, root: base64Of(root) });
  const way = `From entry ${index} of ${counted(size)} up to the root ${base64Of(root)}`;
  return `${way} (${hashes(path.length)}).`;
}

/** Step 4. @param {Given} given @param {Found} found */
function checkNote({ proof, expected }, found) {
  const note = parseCheckpoint(textOf(proof, "checkpoint"));
  if (note.origin !== expected.origin) {
    throw new Wrong("origin", `The checkpoint is of the log ${note.origin}, not of ${expected.origin}.`);
  }
  if (note.size !== found.facts.size || base64Of(note.root) !== found.facts.root) {
    throw new Wrong("note", "The checkpoint says another size or another root than the proof leads to.");
  }
  found.note = note;
  return `${note.origin}: ${counted(note.size)} entries and the same root.`;
}

/** Step 5. @param {Given} given @param {Found} found */
async function checkSignature({ served }, found) {
  const note = /** @type {Note} */ (found.note);
  const key = await parseKey(served);
  if (key.name !== note.origin) {
    throw new Wrong("key", `The key is that of ${key.name}, not of ${note.origin}.`);
  }
  const signed = note.signatures.filter(({ name, id }) => name === key.name && same(id, key.id));
  if (!signed.length) throw new Wrong("signature", "The checkpoint is not signed by the key of the log.");
  for (const { bytes } of signed) {
    if (!(await isSigned(key, bytes, bytesOf(note.text)))) {
      throw new Wrong(
        "signature",
        "The signature is NOT of this checkpoint: its text or its signature is forged.",
      );
    }
  }
  found.facts.key = key.text;
  return `Ed25519, by the key ${key.text}.`;
}

/** Step 6: trust on first use. @param {Given} given @param {Found} found */
async function checkKey({ kept }, found) {
  const key = await parseKey(found.facts.key);
  const before = await parseKept(kept);
  if (before === null) {
    return (
      "This is the first time, so this browser has nothing to compare the key with: it keeps it from now " +
      "on. Compare it once with the key that you have from the operator."
    );
  }
  if (before.key.name !== key.name) {
    throw new Wrong(
      "log-changed",
      `ANOTHER LOG is served here than before: this browser knows ${before.key.name}, and not ${key.name}.`,
    );
  }
  if (before.key.text !== key.text) {
    throw new Wrong(
      "key-changed",
      `The key has CHANGED: this browser knows ${before.key.text}, and ${key.text} has signed.`,
    );
  }
  return "It is the key that this browser keeps of this log.";
}

/** Step 7. @param {Given} given @param {Found} found */
async function checkGrowth({ kept, consistency }, found) {
  const now = /** @type {Note} */ (found.note);
  const before = await parseKept(kept);
  if (before === null) {
    return "The first time it can't be told whether the log was another one before. From now on it can.";
  }
  if (before.key.name !== now.origin) {
    throw new Skipped("Not checked, as this browser remembers another log.");
  }
  return hasGrown(before.note, now, consistency);
}

/** @param {Note} before @param {Note} now @param {Given["consistency"]} consistency */
async function hasGrown(before, now, consistency) {
  const seen = `${counted(before.size)} entries that this browser has seen`;
  if (now.size < before.size) {
    throw new Wrong("shrunk", `The log has SHRUNK to ${counted(now.size)}: it had the ${seen}, signed.`);
  }
  if (now.size === before.size) {
    checkSame(before, now);
    return `It is the log of the ${seen}.`;
  }
  const path = await askForPath(consistency, before.size, now.size);
  await checkNoFork(before, now, path);
  return `It goes on from the ${seen}: none was changed, taken out or moved (${hashes(path.length)}).`;
}

/** @param {Note} before @param {Note} now */
function checkSame(before, now) {
  if (!same(before.root, now.root)) {
    throw new Wrong(
      "fork",
      `The log has FORKED: its ${counted(now.size)} entries had the root ${base64Of(before.root)} when ` +
        `this browser saw them, and have ${base64Of(now.root)} now. An honest server never signs both.`,
    );
  }
}

/** @param {Note} before @param {Note} now @param {Bytes[]} path */
async function checkNoFork(before, now, path) {
  try {
    await verifyConsistency(before.size, now.size, path, before.root, now.root);
  } catch (error) {
    if (!(error instanceof Wrong)) throw error;
    throw new Wrong(
      "fork",
      `The log has FORKED: its ${counted(now.size)} entries are not shown to go on from the ` +
        `${counted(before.size)} that this browser has seen. ${error.message}`,
    );
  }
}

/** @param {Given["consistency"]} consistency @param {number} from @param {number} to */
async function askForPath(consistency, from, to) {
  let answer;
  try {
    answer = await consistency(from, to);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Unable(
      `The server did not prove that the log has only grown. ${reason} ` +
        "Try again; a server that hides something may answer so, too.",
    );
  }
  if (countOf(answer, "from") !== from || countOf(answer, "to") !== to) {
    throw new Wrong("consistency", "The server answered with a consistency proof between other sizes.");
  }
  return pathOf(answer);
}

// What this browser keeps: the key that it trusts, and the largest checkpoint that it has seen. With its
// signature, as two signed checkpoints that contradict each other convince anybody who has the key.

/** @param {Found} found */
function toKeep({ facts, note }) {
  return JSON.stringify({ key: facts.key, checkpoint: note?.whole });
}

/** @param {string | null} text @returns {Promise<Kept | null>} */
async function parseKept(text) {
  if (text === null) return null;
  try {
    const kept = JSON.parse(text);
    const key = await parseKey(textOf(kept, "key"));
    const note = parseCheckpoint(textOf(kept, "checkpoint"));
    if (note.origin !== key.name) throw new Wrong("form", "The checkpoint is of another log than the key.");
    return { key, note };
  } catch (error) {
    if (error instanceof Unable) throw error;
    throw new Unable(
      "What this browser keeps of the log is damaged. To begin anew, clear the data of this site.",
    );
  }
}

// Trees (RFC 6962 and RFC 9162).

/**
 * RFC 9162, section 2.1.3.2: the leaf of this hash is at `index` in the log of this root.
 * @param {number} index @param {number} size @param {Bytes} leaf @param {Bytes[]} path @param {Bytes} root
 */
export async function verifyInclusion(index, size, leaf, path, root) {
  if (index >= size) throw new Wrong("path", `There is no entry ${index} in a log of ${size}.`);
  let latest = leaf;
  for (const [hash, isLeft] of wayUp(index, size - 1, path)) {
    latest = await (isLeft ? nodeHash(hash, latest) : nodeHash(latest, hash));
  }
  if (!same(latest, root)) {
    throw new Wrong("path", `The path from entry ${index} does NOT lead to the root of ${size} entries.`);
  }
}

/**
 * RFC 9162, section 2.1.4.2: the log of `size` entries begins with those of the log of `old`, at least one.
 * @param {number} old @param {number} size @param {Bytes[]} path
 * @param {Bytes} oldRoot @param {Bytes} newRoot
 */
export async function verifyConsistency(old, size, path, oldRoot, newRoot) {
  if (old < 1 || old >= size) throw new Wrong("consistency", `Nothing leads from ${old} entries to ${size}.`);
  let [node, last] = [old - 1, size - 1];
  while (node % 2 === 1) [node, last] = [half(node), half(last)];
  // A power of two is a node, which the verifier holds.
  const [beginning, ...rest] = node ? path : [oldRoot, ...path];
  if (beginning === undefined) throw new Wrong("consistency", "The path is too short.");
  let [oldLatest, newLatest] = [beginning, beginning];
  for (const [hash, isLeft] of wayUp(node, last, rest)) {
    if (isLeft) oldLatest = await nodeHash(hash, oldLatest);
    newLatest = await (isLeft ? nodeHash(hash, newLatest) : nodeHash(newLatest, hash));
  }
  if (!same(oldLatest, oldRoot))
    throw new Wrong("consistency", `The path does not lead to the root of ${old}.`);
  if (!same(newLatest, newRoot))
    throw new Wrong("consistency", `The path does not lead to the root of ${size}.`);
}

/**
 * The hashes on the way from a node up to the root, and whether each stands on the left; `last` is the last
 * node of the same level. A path of another length is refused.
 * @param {number} node @param {number} last @param {Bytes[]} path
 * @returns {Generator<[Bytes, boolean], void, void>}
 */
function* wayUp(node, last, path) {
  for (const hash of path) {
    if (last === 0) throw new Wrong("path", "The path is too long.");
    const isLeft = node % 2 === 1 || node === last;
    // Above the last node of an odd number nothing stands beside it, up to where it is the right one of two.
    while (isLeft && node !== 0 && node % 2 === 0) [node, last] = [half(node), half(last)];
    yield [hash, isLeft];
    [node, last] = [half(node), half(last)];
  }
  if (last !== 0) throw new Wrong("path", "The path is too short.");
}

// Not a shift: that would cut numbers off at 32 bits.
/** @param {number} number */
function half(number) {
  return Math.floor(number / 2);
}

/** @param {Bytes} entry */
function leafHash(entry) {
  return sha256(joined([0], entry));
}

/** @param {Bytes} left @param {Bytes} right */
function nodeHash(left, right) {
  return sha256(joined([1], left, right));
}

// Notes and keys (C2SP signed-note, tlog-checkpoint).

/** A key such as `log.example+1a2b3c4d+AQ...`. @param {unknown} text @returns {Promise<Key>} */
async function parseKey(text) {
  const parts = typeof text === "string" ? /^([^+]+)\+([0-9a-f]{8})\+(.+)$/su.exec(text) : null;
  const packed = parts && bytesOfBase64(parts[3]);
  if (!parts || !packed || packed.length !== KEY_BYTES + 1 || packed[0] !== ED25519) {
    throw new Wrong("key", "The server serves no verifier key of the form NAME+ID+BASE64, with Ed25519.");
  }
  const [whole, name, idText] = parts;
  checkName(name);
  const id = (await sha256(joined(bytesOf(`${name}\n`), packed))).slice(0, KEY_ID_BYTES);
  if (hexOf(id) !== idText)
    throw new Wrong("key", "The id in the verifier key is not that of its name and key.");
  return { name, id, bytes: packed.slice(1), text: whole };
}

/** @param {string} whole @returns {Note} */
function parseCheckpoint(whole) {
  const blank = whole.lastIndexOf("\n\n");
  if (blank < 0 || !whole.endsWith("\n") || whole.length === blank + 2 || NO_TEXT.test(whole)) {
    throw new Wrong("form", "The checkpoint is no text with an empty line and signatures below it.");
  }
  const text = whole.slice(0, blank + 1);
  const below = whole.slice(blank + 2, -1).split("\n");
  if (below.length > SIGNATURES_MAX) throw new Wrong("form", "The checkpoint has too many signatures.");
  const [origin, size, root, ...extensions] = text.slice(0, -1).split("\n");
  if (!origin || !size || !root || extensions.includes("")) {
    throw new Wrong("form", "A checkpoint is at least three lines, none of them empty.");
  }
  const signatures = below.map(parseSignature);
  return { whole, text, origin, size: sizeOf(size), root: hashOf(root), signatures };
}

/** @param {string} line @returns {Signature} */
function parseSignature(line) {
  const [, name, encoded] = /^\u2014 ([^ ]*) (.*)$/su.exec(line) ?? ["", "", ""];
  const bytes = bytesOfBase64(encoded);
  if (!line.startsWith(DASH) || !bytes || bytes.length <= KEY_ID_BYTES) {
    throw new Wrong("form", "A signature is not of the form: dash, name of the key, base64.");
  }
  checkName(name);
  return { name, id: bytes.slice(0, KEY_ID_BYTES), bytes: bytes.slice(KEY_ID_BYTES) };
}

/** @param {string} name */
function checkName(name) {
  if (!name || NO_NAME.test(name) || NO_TEXT.test(name)) throw new Wrong("form", "This is no name of a key.");
}

/** @param {string} text */
function sizeOf(text) {
  const size = DECIMAL.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(size))
    throw new Wrong("form", "A size is a decimal number without leading zeros.");
  return size;
}

// The members of what the server answered.

/** @param {unknown} answer @param {string} name @returns {unknown} */
function memberOf(answer, name) {
  if (typeof answer !== "object" || answer === null || !Object.hasOwn(answer, name)) {
    throw new Wrong("form", `The answer of the server has no ${name}.`);
  }
  return /** @type {Record<string, unknown>} */ (answer)[name];
}

/** @param {unknown} answer @param {string} name */
function textOf(answer, name) {
  const text = memberOf(answer, name);
  if (typeof text !== "string")
    throw new Wrong("form", `The ${name} in the answer of the server is no text.`);
  return text;
}

/**
 * One line: doc and stamp are told apart by the line feed between them.
 * @param {unknown} answer @param {string} name
 */
function lineOf(answer, name) {
  const text = textOf(answer, name);
  if (text.includes("\n") || NO_TEXT.test(text))
    throw new Wrong("form", `The ${name} is not one line of text.`);
  return text;
}

/** @param {unknown} answer @param {string} name */
function countOf(answer, name) {
  const count = memberOf(answer, name);
  if (typeof count !== "number" || !Number.isSafeInteger(count) || count < 0) {
    throw new Wrong("form", `The ${name} in the answer of the server is no count.`);
  }
  return count;
}

/** @param {unknown} answer */
function pathOf(answer) {
  const path = memberOf(answer, "path");
  if (!Array.isArray(path)) throw new Wrong("form", "The path in the answer of the server is no list.");
  return path.map(hashOf);
}

/** @param {unknown} text */
function hashOf(text) {
  const hash = typeof text === "string" ? bytesOfBase64(text) : null;
  if (hash === null || hash.length !== HASH_BYTES) {
    throw new Wrong("form", `A hash is not the base64 of ${HASH_BYTES} bytes.`);
  }
  return hash;
}

// Bytes.

/** @returns {SubtleCrypto} */
function subtle() {
  const found = globalThis.crypto?.subtle;
  if (!found) {
    throw new Unable(
      "This browser can't hash on this page, as it came neither by https nor from this machine.",
    );
  }
  return found;
}

/** @param {Bytes} data @returns {Promise<Bytes>} */
async function sha256(data) {
  return new Uint8Array(await subtle().digest("SHA-256", data));
}

/** @param {Key} key @param {Bytes} signature @param {Bytes} message */
async function isSigned(key, signature, message) {
  try {
    const imported = await subtle().importKey("raw", key.bytes, { name: "Ed25519" }, false, ["verify"]);
    return await subtle().verify({ name: "Ed25519" }, imported, signature, message);
  } catch (error) {
    if (error instanceof Unable) throw error;
    if (error instanceof DOMException && error.name === "DataError") return false;
    throw new Unable("This browser can't check signatures (Ed25519). That is no forgery: use a newer one.");
  }
}

/** @param {string} text @returns {Bytes} */
function bytesOf(text) {
  return new TextEncoder().encode(text);
}

/** @param {...Iterable<number>} parts @returns {Bytes} */
function joined(...parts) {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** The bytes (RFC 4648, section 4); null when these are not written so. @param {string} text */
function bytesOfBase64(text) {
  try {
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    return base64Of(bytes) === text ? bytes : null;
  } catch {
    return null;
  }
}

/** @param {Bytes} bytes */
function base64Of(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

/** @param {Bytes} bytes */
function hexOf(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {Bytes} one @param {Bytes} other */
function same(one, other) {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

/** @param {number} count */
function counted(count) {
  return count.toLocaleString("en-US");
}

/** @param {number} count */
function hashes(count) {
  return count === 1 ? "1 hash" : `${count} hashes`;
}
