// @ts-check
// Buttons that copy a text.

import { allIn } from "./elements.js";

const DONE_MS = 1500;

/** @param {ParentNode} root */
export function enableCopying(root) {
  for (const button of allIn(root, "button[data-copy][hidden]")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest("[data-copy]"));
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy ?? "");
    say("Copied");
    button.classList.add("is-done");
    setTimeout(() => button.classList.remove("is-done"), DONE_MS);
  } catch {
    say("This browser does not let the page copy");
  }
});

/** Tells people who listen, and not look. @param {string} text */
export function say(text) {
  const said = document.getElementById("said");
  if (said) said.textContent = text;
}
