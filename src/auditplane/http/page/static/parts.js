// @ts-check
// Parts of the page that are asked for when they are needed.

import { lose } from "./connection.js";

let asked = 0;

/**
 * Fills a place with what the server answers at a URL. Where that is an error, the whole page goes there, to show it.
 * False when it was not filled: then, or when another part was asked for meanwhile.
 * @param {string} url @param {HTMLElement} place
 */
export async function loadPart(url, place) {
  const number = ++asked;
  place.setAttribute("aria-busy", "true");
  try {
    const headers = { "HX-Request": "true", "HX-Current-URL": location.href };
    const answer = await fetch(url, { headers });
    const html = await answer.text();
    if (number !== asked) return false;
    if (!answer.ok) {
      location.assign(answer.headers.get("HX-Redirect") ?? url);
      return false;
    }
    place.innerHTML = html;
    htmx.process(place);
    place.dispatchEvent(new CustomEvent("htmx:load", { bubbles: true, detail: { elt: place } }));
    return true;
  } catch {
    lose();
    return false;
  } finally {
    place.removeAttribute("aria-busy");
  }
}
