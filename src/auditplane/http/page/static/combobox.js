// @ts-check
// Suggestions below a field while typing: a combobox with a list (ARIA Authoring Practices).

import { allIn } from "./elements.js";

const PAUSE_MS = 120;
let lists = 0;

/** @param {ParentNode} root */
export function offerSuggestions(root) {
  for (const input of allIn(root, "input[data-suggest]:not([role])")) offer(/** @type {HTMLInputElement} */ (input));
}

/** @param {HTMLInputElement} input */
function offer(input) {
  const list = document.createElement("ul");
  list.id = `suggestions-${++lists}`;
  list.className = "suggestions";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", `${input.labels?.[0]?.textContent ?? "Values"} in the trail`);
  list.hidden = true;
  input.after(list);
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", list.id);
  input.setAttribute("aria-expanded", "false");

  let timer = 0;
  let asked = 0;
  const options = () => /** @type {HTMLElement[]} */ ([...list.children]);
  const current = () => options().findIndex((option) => option.getAttribute("aria-selected") === "true");

  const close = () => {
    clearTimeout(timer);
    asked++;
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const ask = async () => {
    const number = ++asked;
    const url = `${input.dataset.suggest}&text=${encodeURIComponent(input.value.trim())}`;
    const answer = await fetch(url, { headers: { "HX-Request": "true" } }).catch(() => null);
    if (!answer?.ok || number !== asked || document.activeElement !== input) return;
    list.innerHTML = await answer.text();
    options().forEach((option, at) => {
      option.id = `${list.id}-${at}`;
    });
    list.hidden = !list.children.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    input.removeAttribute("aria-activedescendant");
  };
  const askSoon = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE_MS);
  };
  /** @param {number} at */
  const mark = (at) => {
    options().forEach((option, number) => option.setAttribute("aria-selected", String(number === at)));
    input.setAttribute("aria-activedescendant", `${list.id}-${at}`);
    options()[at]?.scrollIntoView({ block: "nearest" });
  };
  /** @param {HTMLElement} option */
  const choose = (option) => {
    input.value = option.dataset.value ?? "";
    close();
    if (input.dataset.stays === undefined) input.form?.requestSubmit();
  };

  input.addEventListener("focus", askSoon);
  input.addEventListener("input", askSoon);
  input.addEventListener("blur", close);
  list.addEventListener("pointerdown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const option = /** @type {HTMLElement} */ (event.target).closest("[role=option]");
    if (option) choose(/** @type {HTMLElement} */ (option));
  });
  input.addEventListener("keydown", (event) => {
    const count = options().length;
    if (event.key === "Escape" && !list.hidden) {
      close();
      event.stopPropagation();
    } else if (event.key === "ArrowDown" && list.hidden) {
      ask();
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && count) {
      const step = event.key === "ArrowDown" ? 1 : -1;
      mark((current() + step + count + (current() < 0 && step < 0 ? 1 : 0)) % count);
      event.preventDefault();
    } else if (event.key === "Enter" && !list.hidden && current() >= 0) {
      choose(options()[current()]);
      event.preventDefault();
    }
  });
}
