// @ts-check
// The drawer that shows one event beside the trail. It has an address of its own, so Back closes it.

import { loadPart } from "./parts.js";

const PATH = "/events/";

/** @returns {HTMLElement | null} */
const drawer = () => document.getElementById("drawer");

/** Whether an event is shown. */
export function isDrawerOpen() {
  return drawer()?.hidden === false;
}

/** The rows of events, as they stand in the table. @returns {HTMLTableRowElement[]} */
export function eventRows() {
  return [...document.querySelectorAll("#rows tr[id]")].map((row) => /** @type {HTMLTableRowElement} */ (row));
}

/** The row that is marked. */
export function currentRow() {
  return /** @type {HTMLTableRowElement | null} */ (document.querySelector("#rows tr.is-current"));
}

/** @param {Element | null} row */
export function markRow(row) {
  currentRow()?.classList.remove("is-current");
  row?.classList.add("is-current");
  row?.scrollIntoView({ block: "nearest" });
}

/** Opens an event at its address. @param {string} url */
export async function openEvent(url) {
  const already = isDrawerOpen();
  if (!(await load(url))) return;
  if (already) history.replaceState({ drawer: true, pushed: history.state?.pushed }, "", url);
  else history.pushState({ drawer: true, pushed: true }, "", url);
}

/** Closes the drawer, and gives the focus back to its row. */
export function closeEvent() {
  if (!isDrawerOpen()) return;
  if (history.state?.pushed) history.back();
  else {
    history.replaceState(null, "", drawer()?.dataset.back ?? "/");
    hide();
  }
}

export function enableDrawer() {
  if (!drawer()) return;
  document.addEventListener("click", onClick);
  addEventListener("popstate", onPopState);
  if (isDrawerOpen()) markShown(location.href);
}

/** @param {MouseEvent} event */
function onClick(event) {
  const target = /** @type {Element} */ (event.target);
  const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey || event.button);
  if (!plain || event.defaultPrevented) return;
  if (target.closest("#drawer-close")) {
    event.preventDefault();
    closeEvent();
    return;
  }
  const link = target.closest("a");
  const row = target.closest("#rows tr[id]");
  const selecting = !link && getSelection()?.toString();
  const open = link ? link.closest("a.open") : row?.querySelector("a.open");
  if (!open || selecting) return;
  event.preventDefault();
  openEvent(/** @type {HTMLAnchorElement} */ (open).href);
}

async function onPopState() {
  if (location.pathname.startsWith(PATH)) await load(location.href);
  else hide();
}

/** @param {string} url */
async function load(url) {
  const place = drawer();
  if (!place || !(await loadPart(url, place))) return false;
  place.hidden = false;
  markShown(url);
  const title = place.querySelector("h2");
  title?.setAttribute("tabindex", "-1");
  title?.focus({ preventScroll: true });
  return true;
}

/** @param {string} url */
function markShown(url) {
  const id = new URL(url, location.href).pathname.slice(PATH.length);
  markRow(document.getElementById(`e-${id}`));
}

function hide() {
  const place = drawer();
  if (!place || place.hidden) return;
  place.hidden = true;
  place.replaceChildren();
  const link = currentRow()?.querySelector("a.open");
  /** @type {HTMLElement | null | undefined} */ (link)?.focus({ preventScroll: true });
}
