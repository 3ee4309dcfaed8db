// @ts-check
// Buttons that copy a text, and commands that name this server.

import { allIn } from "./elements.js";

const DONE_MS = 1500;

/** @param {ParentNode} root */
export function enableCopying(root) {
  for (const button of allIn(root, "button[data-copy][hidden]")) button.hidden = false;
}

/**
 * Puts the address of this server where a command names it by a word: only the browser knows it for sure.
 * @param {ParentNode} root
 */
export function nameServer(root) {
  for (const part of allIn(root, "[data-server]")) {
    const word = part.dataset.server ?? "";
    delete part.dataset.server;
    for (const code of part.querySelectorAll("code")) {
      code.textContent = (code.textContent ?? "").replaceAll(word, location.origin);
    }
    for (const button of allIn(part, "button[data-copy]")) {
      button.dataset.copy = (button.dataset.copy ?? "").replaceAll(word, location.origin);
    }
  }
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
