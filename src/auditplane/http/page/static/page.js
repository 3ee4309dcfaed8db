// @ts-check
// What the page does beyond its HTML. Each part works by itself, and on what htmx brings later, too.

import { watchConnection } from "./connection.js";
import { drawCharts, redrawCharts } from "./chart.js";
import { offerSuggestions } from "./combobox.js";
import { enableCopying, nameServer } from "./copying.js";
import { enableDates } from "./dates.js";
import { enableDrawer } from "./drawer.js";
import { enableExport } from "./exporting.js";
import { enableKeyboard } from "./keyboard.js";
import { enableLive } from "./live.js";
import { enableSwitches, showTimes } from "./preferences.js";
import { enhance as enableProof } from "./proof_view.js";
import { enableRows } from "./rows.js";

/** @param {ParentNode} root */
function enhance(root) {
  showTimes(root);
  enableCopying(root);
  nameServer(root);
  offerSuggestions(root);
  enableDates(root);
  drawCharts(root);
  enableProof(root);
}

enableSwitches(() => {
  showTimes(document);
  redrawCharts();
});
enhance(document);
document.body.addEventListener("htmx:load", (event) => {
  const { elt } = /** @type {CustomEvent} */ (event).detail;
  if (elt !== document.body) enhance(elt);
});
enableRows();
enableDrawer();
enableExport();
enableLive();
enableKeyboard();
watchConnection();

// Empty fields are no filters, and have no place in the URL.
document.addEventListener("submit", (event) => {
  const form = /** @type {HTMLFormElement} */ (event.target);
  if (form.method !== "get") return;
  for (const input of form.querySelectorAll("input")) input.disabled ||= input.value.trim() === "";
});
addEventListener("pageshow", () => {
  for (const input of document.querySelectorAll("#filters input:disabled")) {
    /** @type {HTMLInputElement} */ (input).disabled = false;
  }
});

// A menu closes when something else is used.
document.addEventListener("click", (event) => closeMenus(/** @type {Node} */ (event.target)));
document.addEventListener("focusin", (event) => closeMenus(/** @type {Node} */ (event.target)));

/** @param {Node} used */
function closeMenus(used) {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(used)) menu.removeAttribute("open");
  }
}
