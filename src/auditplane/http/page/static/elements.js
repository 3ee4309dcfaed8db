// @ts-check
// Finding elements, and making those of texts.

const TURNING = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/**
 * The elements of a part of the page that a selector matches, the part itself among them.
 * @param {ParentNode} root @param {string} selector @returns {HTMLElement[]}
 */
export function allIn(root, selector) {
  const own = root instanceof Element && root.matches(selector) ? [root] : [];
  return [...own, ...root.querySelectorAll(selector)].map((element) => /** @type {HTMLElement} */ (element));
}

/**
 * A text of an event, which turns nothing that stands beside it (texts.py does the same).
 * @param {string} text
 */
export function isolated(text) {
  const element = document.createElement("bdi");
  element.textContent = text.replace(TURNING, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return element;
}
