// @ts-check
// The pickers beside the date fields, and "Today" in the zone that is shown.

import { allIn } from "./elements.js";
import { isLocal } from "./preferences.js";

/** @param {ParentNode} root */
export function enableDates(root) {
  for (const picker of allIn(root, "input[data-pick]")) enablePicker(/** @type {HTMLInputElement} */ (picker));
  const today = root.querySelector('[data-range="today"]');
  today?.addEventListener("click", () => {
    const url = new URL(/** @type {HTMLAnchorElement} */ (today).href);
    const midnight = new Date();
    if (isLocal()) midnight.setHours(0, 0, 0, 0);
    else midnight.setUTCHours(0, 0, 0, 0);
    url.searchParams.set("min-date", written(midnight));
    /** @type {HTMLAnchorElement} */ (today).href = url.href;
  });
}

/** @param {HTMLInputElement} picker */
function enablePicker(picker) {
  const field = /** @type {HTMLInputElement} */ (document.getElementById(picker.dataset.pick ?? ""));
  const holder = /** @type {HTMLElement} */ (picker.parentElement);
  holder.hidden = false;
  holder.querySelector("button")?.addEventListener("click", () => picker.showPicker());
  picker.addEventListener("input", () => {
    const date = new Date(isLocal() ? picker.value : `${picker.value}Z`);
    if (!Number.isNaN(date.getTime())) field.value = written(date);
  });
}

/** @param {Date} date */
function written(date) {
  return date.toISOString().replace(/\.\d+Z/, "Z");
}
