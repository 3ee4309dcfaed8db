// @ts-check
// Finding elements.

/**
 * The elements of a part of the page that a selector matches, the part itself among them.
 * @param {ParentNode} root @param {string} selector @returns {HTMLElement[]}
 */
export function allIn(root, selector) {
  const own = root instanceof Element && root.matches(selector) ? [root] : [];
  return [...own, ...root.querySelectorAll(selector)].map((element) => /** @type {HTMLElement} */ (element));
}
