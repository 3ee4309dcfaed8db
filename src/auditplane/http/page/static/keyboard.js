// @ts-check
// The page by keyboard.

import { closeEvent, currentRow, eventRows, isDrawerOpen, markRow, openEvent } from "./drawer.js";

export function enableKeyboard() {
  const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById("shortcuts"));
  const list = document.getElementById("show-shortcuts");
  if (list) list.hidden = false;
  list?.addEventListener("click", () => dialog?.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "Escape") return escape(event);
    if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
    const act = ACTS[event.key];
    if (!act) return;
    if (act(event) !== false) event.preventDefault();
  });

  /** @type {Record<string, (event: KeyboardEvent) => unknown>} */
  const ACTS = {
    "/": () => document.getElementById("f-q")?.focus() ?? false,
    "?": () => dialog?.showModal(),
    j: () => move(1),
    k: () => move(-1),
    Enter: (event) => open(event),
    l: () => document.getElementById("live-switch")?.click(),
    e: () => document.getElementById("export-link")?.click(),
  };
}

/** @param {EventTarget | null} target */
function isTyping(target) {
  return target instanceof Element && target.closest("input, textarea, select, [contenteditable]") !== null;
}

/** Escape closes what is nearest: a menu, a field, the drawer. @param {KeyboardEvent} event */
function escape(event) {
  if (document.querySelector("dialog[open]")) return;
  const menu = document.querySelector("details.menu[open]");
  if (menu) {
    menu.removeAttribute("open");
    menu.querySelector("summary")?.focus();
  } else if (isTyping(event.target)) {
    /** @type {HTMLElement} */ (event.target).blur();
  } else {
    closeEvent();
  }
}

/** @param {number} step */
function move(step) {
  const rows = eventRows();
  const at = rows.indexOf(/** @type {HTMLTableRowElement} */ (currentRow()));
  const next = rows[at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1)];
  if (!next) return false;
  markRow(next);
  const link = /** @type {HTMLAnchorElement | null} */ (next.querySelector("a.open"));
  if (isDrawerOpen() && link) openEvent(link.href);
  else link?.focus({ preventScroll: true });
  return true;
}

/** @param {KeyboardEvent} event */
function open(event) {
  if (event.target instanceof Element && event.target.closest("a, button, summary")) return false;
  const link = /** @type {HTMLAnchorElement | null | undefined} */ (currentRow()?.querySelector("a.open"));
  if (!link) return false;
  openEvent(link.href);
  return true;
}
