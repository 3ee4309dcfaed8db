// @ts-check
// The dialog that exports the view.

import { loadPart } from "./parts.js";

export function enableExport() {
  const link = /** @type {HTMLAnchorElement | null} */ (document.getElementById("export-link"));
  const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById("export"));
  if (!link || !dialog) return;
  link.addEventListener("click", async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    if ((await loadPart(link.href, dialog)) && !dialog.open) dialog.showModal();
  });
}
