// @ts-check
// The dialog that exports the view.

export function enableExport() {
  const link = /** @type {HTMLAnchorElement | null} */ (document.getElementById("export-link"));
  const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById("export"));
  if (!link || !dialog) return;
  link.addEventListener("click", async (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    await htmx.ajax("get", link.href, { target: dialog, swap: "innerHTML" });
    if (dialog.firstElementChild && !dialog.open) dialog.showModal();
  });
}
