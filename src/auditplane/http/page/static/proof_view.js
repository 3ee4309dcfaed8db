// @ts-check
/**
 * The button "Verify in this browser": asks for the proof of an event, shows the steps of `proof.js` as they
 * are taken, and says what came of them.
 *
 * For each account this browser keeps one entry in localStorage: the key that it trusts and the largest
 * signed checkpoint that it has seen. The entry goes by account alone, so that a log under another name is
 * noticed too. What could not be asked for is never called a failure of the proof, and never a success.
 */

import { STEPS_COUNT, verify } from "./proof.js";

/** @typedef {import("./proof.js").Given} Given */
/** @typedef {import("./proof.js").Step} Step */
/** @typedef {import("./proof.js").Verdict} Verdict */
/** @typedef {{ button: HTMLButtonElement, status: Element, steps: Element, verdict: Element }} Parts */
/** @typedef {{ at: string, shown: string, kept: string | null, proof: unknown }} Evidence */

const KEPT = "auditplane.log:";
const LOCK = "auditplane.proof";
const ANSWER_MS = 30_000;
const ESCAPES = /\\(?:u(061c|200[ef]|202[a-e]|206[6-9])|.)/g;

/** @type {Record<Step["state"], { icon: string, text: string }>} */
const STATES = {
  ok: { icon: "✓", text: "Holds" },
  failed: { icon: "✗", text: "FAILED" },
  unable: { icon: "?", text: "Could not be checked" },
  skipped: { icon: "–", text: "Not checked" },
};

/** What the server or the network did not give. */
class NoAnswer extends Error {}

/**
 * Makes the buttons below `root` work; may be called again on what it has seen.
 * @param {ParentNode} root
 */
export function enhance(root) {
  const own = root instanceof HTMLElement && root.matches("[data-proof]") ? [root] : [];
  for (const element of [...own, ...root.querySelectorAll("[data-proof]:not([data-proof-ready])")]) {
    if (element instanceof HTMLElement && element.dataset.proofReady === undefined) prepare(element);
  }
}

/** @param {HTMLElement} element */
function prepare(element) {
  element.dataset.proofReady = "";
  const template = element.querySelector("template[data-proof-controls]");
  if (!(template instanceof HTMLTemplateElement)) return;
  template.replaceWith(template.content.cloneNode(true));
  const server = element.querySelector("[data-proof-server]");
  if (server) server.textContent = location.origin;
  const button = element.querySelector("[data-proof-verify]");
  button?.addEventListener("click", () => run(element));
}

/** @param {HTMLElement} element @returns {Parts} */
function partsOf(element) {
  const button = /** @type {HTMLButtonElement} */ (element.querySelector("[data-proof-verify]"));
  const [status, steps, verdict] = [".proof-status", ".proof-steps", "[data-proof-verdict]"].map(
    (selector) => /** @type {Element} */ (element.querySelector(selector)),
  );
  return { button, status, steps, verdict };
}

/**
 * Takes the steps; first keeps what was accepted, if anything was.
 * @param {HTMLElement} element @param {string | null} accepted
 */
async function run(element, accepted = null) {
  const parts = partsOf(element);
  parts.steps.replaceChildren();
  parts.verdict.replaceChildren();
  parts.status.textContent = "Asking the server for the proof…";
  parts.button.disabled = true;
  try {
    await alone(() => check(element, parts, accepted));
  } catch (error) {
    parts.status.textContent = "Not verified.";
    parts.verdict.replaceChildren(unknownBox([error instanceof Error ? error.message : String(error)]));
  } finally {
    parts.button.disabled = false;
  }
}

// A tab that asked earlier and ends later would take the log, which another tab saw grow, for a shrunken one.
/** @param {() => Promise<void>} work */
async function alone(work) {
  await (navigator.locks ? navigator.locks.request(LOCK, work) : work());
}

/** @param {HTMLElement} element @param {Parts} parts @param {string | null} accepted */
async function check(element, parts, accepted) {
  if (accepted !== null) remember(element, accepted);
  const shown = docOf(document.getElementById(element.dataset.shown ?? "")?.textContent ?? "");
  const kept = recalled(element);
  const proof = await ask(new URL(element.dataset.proofUrl ?? "", document.baseURI));
  const given = givenOf(element, shown, kept, proof);
  const verdict = await show(given, parts);
  if (verdict.remember !== null) remember(element, verdict.remember);
  parts.status.textContent = verdict.verified ? "Verified." : "Not verified.";
  const evidence = { at: new Date().toISOString(), shown, kept, proof };
  parts.verdict.replaceChildren(boxOf(element, verdict, evidence), factsOf(verdict, proof));
}

/**
 * The JSON that the page shows: what would turn its direction stands there as an escape, which the JSON of an event
 * has of no such sign (texts.py). A backslash of a text is two, and begins none.
 * @param {string} text
 */
function docOf(text) {
  return text.replace(ESCAPES, (all, code) => (code ? String.fromCharCode(parseInt(code, 16)) : all));
}

/**
 * @param {HTMLElement} element @param {string} shown @param {string | null} kept @param {any} proof
 * @returns {Given}
 */
function givenOf(element, shown, kept, proof) {
  const { index = "", entry = "", log = "" } = element.dataset;
  return {
    shown,
    expected: { index: index === "" ? NaN : Number(index), entry, origin: log },
    proof,
    served: proof?.key,
    kept,
    consistency: (from, to) => askForConsistency(element, from, to),
  };
}

/**
 * Takes the steps, and shows each when it is taken.
 * @param {Given} given @param {Parts} parts @returns {Promise<Verdict>}
 */
async function show(given, parts) {
  const steps = verify(given);
  for (;;) {
    const { done, value } = await steps.next();
    if (done) return value;
    parts.steps.append(stepItem(value));
    parts.status.textContent = `Step ${value.number} of ${STEPS_COUNT}: ${STATES[value.state].text}.`;
  }
}

// What the server is asked for.

/** @param {HTMLElement} element @param {number} from @param {number} to */
function askForConsistency(element, from, to) {
  const url = new URL(element.dataset.consistencyUrl ?? "", document.baseURI);
  url.searchParams.set("from", String(from));
  url.searchParams.set("to", String(to));
  return ask(url);
}

/** @param {URL} url @returns {Promise<any>} */
async function ask(url) {
  const answer = await answerOf(url);
  const isJson = answer.headers.get("Content-Type")?.startsWith("application/json") ?? false;
  if (answer.redirected || !isJson) {
    throw new NoAnswer(
      `The server did not answer as it should (${answer.status}). Sign in again, and try again.`,
    );
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new NoAnswer(`The server answered ${answer.status}: ${reasonOf(body)}`);
  if (body === null) throw new NoAnswer("The answer of the server was cut off or is no JSON. Try again.");
  return body;
}

/** @param {URL} url */
async function answerOf(url) {
  const headers = { Accept: "application/json" };
  try {
    return await fetch(url, { headers, cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  } catch {
    throw new NoAnswer("The server could not be reached, or did not answer in time. Try again.");
  }
}

/** @param {any} body */
function reasonOf(body) {
  return Array.isArray(body?.errors) ? body.errors.join(" ") : "it gave no reason.";
}

// What this browser keeps.

/** @param {HTMLElement} element */
function entryName(element) {
  return KEPT + (element.dataset.log ?? "").split("/").pop();
}

/** @param {HTMLElement} element @returns {string | null} */
function recalled(element) {
  try {
    return localStorage.getItem(entryName(element));
  } catch {
    throw new NoAnswer(
      "This browser keeps nothing for this site, so it can't tell whether the log is the one that it was. " +
        "Allow the site to store data, and try again.",
    );
  }
}

/** @param {HTMLElement} element @param {string} text */
function remember(element, text) {
  try {
    localStorage.setItem(entryName(element), text);
  } catch {
    throw new NoAnswer(
      "This browser could not keep what it has to compare the log with the next time. " +
        "Allow the site to store data, and try again.",
    );
  }
}

// What is shown.

/**
 * An element of some classes, with texts and elements in it.
 * @param {string} name @param {string} classes @param {...(string | Node)} content
 */
function made(name, classes, ...content) {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  element.append(...content);
  return element;
}

/** @param {string} text @param {() => void} work */
function buttonOf(text, work) {
  const button = /** @type {HTMLButtonElement} */ (made("button", "button", text));
  button.type = "button";
  button.addEventListener("click", work);
  return button;
}

/** @param {Step} step */
function stepItem({ title, state, detail }) {
  const { icon, text } = STATES[state];
  const mark = made("span", "proof-icon", icon);
  mark.setAttribute("aria-hidden", "true");
  const head = made("p", "proof-step-title", mark, " ", made("strong", "proof-state", `${text}: `), title);
  return made("li", `proof-step is-${state}`, head, made("p", "proof-detail", detail));
}

/** @param {HTMLElement} element @param {Verdict} verdict @param {Evidence} evidence */
function boxOf(element, verdict, evidence) {
  if (verdict.verified) return verifiedBox(verdict);
  if (verdict.accept !== null) return changedBox(element, verdict, verdict.accept, evidence);
  if (verdict.wrong.some((step) => step.state === "failed")) return failedBox(verdict, evidence);
  return unknownBox(verdict.wrong.map((step) => step.detail));
}

/** @param {Verdict} verdict */
function verifiedBox({ facts, isFirst }) {
  const size = facts.size?.toLocaleString("en-US");
  const what = `Verified: this event is entry ${facts.index} of ${size} in the log, as it was recorded.`;
  const first =
    "It is the first check in this browser: the key was trusted as the server served it. Compare it once " +
    "with the key that you have from the operator.";
  return made(
    "div",
    "verdict is-ok",
    made("p", "", made("strong", "", what)),
    ...(isFirst ? [made("p", "", first)] : []),
  );
}

/** @param {string[]} reasons */
function unknownBox(reasons) {
  const what = "Not verified: the check could not be finished. That tells nothing of the event.";
  const box = made("div", "verdict is-unable", made("p", "", made("strong", "", what)));
  box.append(...reasons.map((reason) => made("p", "", reason)));
  return box;
}

/** @param {string} what @param {Verdict} verdict */
function alertBox(what, verdict) {
  const box = made("div", "verdict is-failed", made("p", "", made("strong", "", what)));
  box.setAttribute("role", "alert");
  box.append(...verdict.wrong.map((step) => made("p", "", step.detail)));
  return box;
}

/** @param {Verdict} verdict @param {Evidence} evidence */
function failedBox(verdict, evidence) {
  const box = alertBox("NOT verified: what this server shows does not fit.", verdict);
  const todo = [
    "Keep a copy of what the server answered, before you do anything else.",
    "Tell the auditor, and whoever runs the server. If it was restored from a backup, he can say so.",
    `Look from another machine: auditplane verify --url ${location.origin} --key log.vkey`,
  ];
  box.append(made("ol", "", ...todo.map((each) => made("li", "", each))), copyButton(evidence));
  return box;
}

/** @param {HTMLElement} element @param {Verdict} verdict @param {string} accept @param {Evidence} evidence */
function changedBox(element, verdict, accept, evidence) {
  const isLog = verdict.wrong.some((step) => step.code === "log-changed");
  const what = isLog
    ? "NOT verified: this is another log than before."
    : "NOT verified: the key of the log has changed.";
  const box = alertBox(what, verdict);
  box.append(...(isLog ? LOG_CHANGED : KEY_CHANGED).map((text) => made("p", "", text)));
  box.append(
    made(
      "p",
      "",
      "To confirm it: ",
      made("code", "", `auditplane verify --url ${location.origin} --key log.vkey`),
    ),
  );
  box.append(copyButton(evidence), " ", acceptButton(element, accept, isLog));
  return box;
}

const KEY_CHANGED = [
  "Everything else holds: the log goes on from the one that this browser has seen. An operator who changes " +
    "the key records that in the trail before the new key signs: an event of the kind AuditTrail, with " +
    "oldKey and newKey, and with the word of the old key for the new one unless that one leaked or was " +
    "lost. Find it, and compare both keys.",
  "A change that nobody announced may mean that somebody else signs in the name of this log.",
];

const LOG_CHANGED = [
  "It begins anew, and nothing of it can be compared with what this browser has seen. That is right only " +
    "if the server was set up anew, with other data. Otherwise somebody shows you another history.",
];

/**
 * Accepting takes two clicks, with what it means between them.
 * @param {HTMLElement} element @param {string} accept @param {boolean} isLog
 */
function acceptButton(element, accept, isLog) {
  const what = isLog ? "log" : "key";
  const place = made("div", "proof-accept");
  const meaning = made(
    "p",
    "",
    `If you accept it, this browser trusts the new ${what} from now on, and forgets the old one. Whoever ` +
      "holds the new key can then show you what he likes from here on. Accept it only when the operator " +
      "has confirmed it by a way other than this page.",
  );
  const accepted = () => run(element, accept);
  const asked = () =>
    place.replaceChildren(meaning, buttonOf(`It is confirmed: trust the new ${what}`, accepted));
  place.append(buttonOf(`Accept the new ${what}…`, asked));
  return place;
}

/** @param {Evidence} evidence */
function copyButton(evidence) {
  return buttonOf("Keep a copy", () => {
    const blob = new Blob([JSON.stringify({ from: location.href, ...evidence }, null, 2)], {
      type: "application/json",
    });
    const link = /** @type {HTMLAnchorElement} */ (made("a", ""));
    link.href = URL.createObjectURL(blob);
    link.download = `auditplane-proof-${evidence.at.replaceAll(":", "")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href));
  });
}

/**
 * What the steps have found, with the server's word for when the checkpoint was signed.
 * @param {Verdict} verdict @param {any} proof
 */
function factsOf({ facts }, proof) {
  const signed = typeof proof?.signed === "string" && facts.key ? proof.signed : undefined;
  /** @type {[string, string | number | undefined][]} */
  const rows = [
    ["Index", facts.index],
    ["Entry hash", facts.entry],
    ["Size of the log", facts.size],
    ["Root", facts.root],
    ["Key", facts.key],
    ["Checkpoint of (by the server)", signed],
  ];
  const list = made("dl", "members proof-facts");
  for (const [name, value] of rows) {
    if (value !== undefined) list.append(made("div", "", made("dt", "", name), factOf(name, String(value))));
  }
  return list;
}

/** @param {string} name @param {string} value */
function factOf(name, value) {
  const copy = buttonOf("Copy", () => {});
  copy.className = "button quiet";
  copy.dataset.copy = value;
  copy.setAttribute("aria-label", `Copy: ${name}`);
  return made("dd", "", made("code", "member-value", value), copy);
}
